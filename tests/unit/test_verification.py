"""The story of verification, told by hand: what it asks, and what it makes of the answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.generation import GenerationRow
from editing_core.refinement import Refinement
from editing_core.stock_questions import StockQuestion
from editing_core.stories import Ask, Decide, Fetch, Neighbour, Refine, Screen, Step, Story
from editing_core.types import Candidate, EditRequest, GenerationResult, RoutingDecision
from editing_core.verification import (
    MAX_NEIGHBOURS,
    Damage,
    Verification,
    conflicts,
    is_target,
    verify,
)
from tests.support.edits import entry as unnamed
from tests.support.edits import unit_vector
from tests.support.tiny_model import tiny_image

KEY = unit_vector(0)


def entry(edit_id: str, image_key: NDArray[np.float32]) -> MemoryEntry:
    """An active edit whose own question can be told from others'."""
    return replace(unnamed(edit_id, image_key), prompt=f"{edit_id}?")


NEW = entry("new", KEY)
REQUEST = EditRequest(tiny_image(0), "own?", "blue")
STOCK = tuple(StockQuestion(f"kind {n}", f"stock {n}?") for n in range(12))


def result(text: str, *applied: str, gate: float = 0.9, stops: bool = True) -> GenerationResult:
    candidates = tuple(Candidate(i, 1.0, gate, 1.0, "applied") for i in applied)
    return GenerationResult(
        text, (1, 2), "stop" if stops else "length", 3, 2, RoutingDecision(candidates)
    )


@dataclass
class World:
    """A model made of rules.

    Without the edit a prompt is answered with "was <prompt>". With it, `says[prompt]` is a list:
    what is said after no refinement, after one, and so on, the last for ever. A prompt that has no
    list is one at which the edit takes no part. `gates` are its text gates; `apart` are prompts
    that no edit can mean, by their words alone.
    """

    says: dict[str, list[str]] = field(default_factory=dict)
    gates: dict[str, float] = field(default_factory=dict)
    targets: dict[str, str] = field(default_factory=dict)
    apart: frozenset[str] = frozenset()
    steps_a_round: int = 5
    storable: bool = True
    steps: list[Step] = field(default_factory=list)

    def tell(self, story: Story[Any]) -> Any:
        reply: Any = None
        while True:
            try:
                step = story.send(reply)
            except StopIteration as end:
                return end.value
            self.steps.append(step)
            reply = self._do(step)

    def _do(self, step: Step) -> Any:
        match step:
            case Ask(rows):
                return [self._answer(row) for row in rows]
            case Decide(rows):
                return [self._answer(row).decision for row in rows]
            case Screen(questions, _):
                return [question not in self.apart for question in questions]
            case Fetch(edit_ids):
                return [
                    Neighbour(i, tiny_image(1), f"{i}?", self.targets.get(i, "t")) for i in edit_ids
                ]
            case Refine(_, wanted, max_steps):
                if not self.storable:
                    return None
                assert wanted[0].row.snapshot is not None
                made = wanted[0].row.snapshot.entries["new"].artifact
                count = min(self.steps_a_round, max_steps)
                done = int(made.metadata.get("rounds", "0")) + 1
                refined = replace(made, metadata={**made.metadata, "rounds": str(done)})
                return Refinement(refined, count, is_right=False)

    def _answer(self, row: GenerationRow) -> GenerationResult:
        assert row.snapshot is not None
        found = row.snapshot.entries.get("new")
        if found is None or row.prompt not in self.says:
            return result(f"was {row.prompt}")
        said = self.says[row.prompt]
        rounds = int(found.artifact.metadata.get("rounds", "0"))
        text = said[min(rounds, len(said) - 1)]
        return result(text, "new", gate=self.gates.get(row.prompt, 0.9))

    def asked(self, prompt: str) -> int:
        """How often `prompt` was answered in full."""
        return sum(
            row.prompt == prompt
            for step in self.steps
            if isinstance(step, Ask)
            for row in step.rows
        )

    @property
    def routed(self) -> list[str]:
        """Prompts of which it was found out who takes part."""
        return [row.prompt for s in self.steps if isinstance(s, Decide) for row in s.rows]

    @property
    def refinements(self) -> list[Refine]:
        return [step for step in self.steps if isinstance(step, Refine)]

    @property
    def fetched(self) -> list[str]:
        return [i for step in self.steps if isinstance(step, Fetch) for i in step.edit_ids]


def empty() -> Snapshot:
    return Snapshot.empty(len(KEY))


def holding(*ids: str, key: Any = KEY) -> Snapshot:
    return empty().evolve(7, activate=[entry(i, key) for i in ids])


def told(world: World, *, base: Snapshot | None = None, **more: Any) -> Verification:
    settings: dict[str, Any] = {"tau": 0.9, "stock": STOCK} | more
    story = verify(REQUEST, NEW, base=empty() if base is None else base, **settings)
    found: Verification = world.tell(story)
    return found


def test_an_edit_that_takes_and_disturbs_nothing_is_verified() -> None:
    world = World({"own?": ["blue"]})
    found = told(world, base=holding("a"))

    assert (found.verified, found.reason, found.refinement_steps) == (True, None, 0)
    assert (found.before, found.after, found.version) == ("was own?", "blue", 7)
    assert found.entry is NEW
    # Where it takes no part, nothing is answered in full.
    assert world.asked("stock 0?") == world.asked("a?") == 0
    assert world.asked("own?") == 2


def test_an_edit_that_does_not_take_is_refined_until_it_does() -> None:
    world = World({"own?": ["red", "blu", "blue"]})
    found = told(world)

    assert found.verified
    assert found.refinement_steps == 10
    assert [step.max_steps for step in world.refinements] == [24, 19]
    (wanted,) = world.refinements[0].wanted
    assert (wanted.row.prompt, wanted.answer, wanted.is_kept) == ("own?", "blue", False)
    assert found.entry.artifact.metadata["rounds"] == "2"
    assert (found.entry.edit_id, found.entry.image_digest) == ("new", NEW.image_digest)


def test_what_never_takes_is_given_up_and_kept_as_it_was() -> None:
    world = World({"own?": ["red", "grey"]})
    found = told(world, max_steps=12)

    assert (found.verified, found.reason) == (False, "edit_not_effective")
    assert [step.max_steps for step in world.refinements] == [12, 7, 2]
    assert (found.after, found.refinement_steps, found.entry) == ("red", 0, NEW)
    assert found.failed == (("own?", "red"),)


@pytest.mark.parametrize("world", [World({"own?": ["red"]}, storable=False), World()])
def test_no_refinement_where_none_can_help(world: World) -> None:
    """It cannot be stored, or the router does not let the edit act at its own prompt."""
    found = told(world)

    assert found.reason == "edit_not_effective"
    assert len(world.refinements) == (0 if not world.says else 1)
    assert told(World({"own?": ["red", "blue"]}), max_steps=0).reason == "edit_not_effective"


def test_an_edit_may_pin_the_answer_that_is_given_already() -> None:
    request = replace(REQUEST, target="was own?")
    found: Verification = World().tell(verify(request, NEW, base=empty(), tau=0.9, stock=STOCK))

    assert found.verified
    assert found.before == found.after == "was own?"


def test_rephrases_must_get_the_target_too() -> None:
    request = replace(REQUEST, rephrases=("again?", "own?"))
    world = World({"own?": ["blue"], "again?": ["red", "blue"]})
    found: Verification = world.tell(verify(request, NEW, base=empty(), tau=0.9, stock=STOCK))

    assert found.verified
    assert [w.row.prompt for w in world.refinements[0].wanted] == ["own?", "again?"]

    world = World({"own?": ["blue"]})
    found = world.tell(verify(request, NEW, base=empty(), tau=0.9, stock=STOCK))
    assert found.failed == (("again?", "was again?"),)
    assert found.after == "blue"


def test_a_question_that_it_is_not_for_keeps_its_answer() -> None:
    request = replace(REQUEST, not_for=("never?", "apart?", "stock 0?"))
    says = {"own?": ["blue"], "never?": ["blue", "was never?"]}
    world = World(says, gates={"never?": 0.99})
    found: Verification = world.tell(verify(request, NEW, base=empty(), tau=0.9, stock=STOCK))

    assert found.verified
    kept = [(w.row.prompt, w.is_kept) for w in world.refinements[0].wanted]
    assert kept == [("own?", False), ("never?", True)]
    assert world.asked("apart?") == 0  # the edit takes no part in it
    assert (
        world.routed.count("stock 0?") == 1
    )  # once as one of these, not again as a stock question

    world = World(says | {"never?": ["blue"]})
    found = world.tell(verify(request, NEW, base=empty(), tau=0.9, stock=STOCK, max_steps=0))
    assert [damage.wire() for damage in found.damaged] == [
        {"prompt": "never?", "before": "was never?", "after": "blue"}
    ]
    assert found.reason == "edit_not_effective"


def test_a_stock_question_taken_for_the_own_prompt_is_replaced_twice_at_most() -> None:
    says = {"own?": ["blue"]} | {f"stock {n}?": ["blue"] for n in range(4)}
    gates = {"stock 1?": 0.99, "stock 2?": 0.95}
    world = World(says, gates)
    found = told(world, max_steps=0)

    # The likest are excused, whatever their place on the list.
    assert [d.prompt for d in found.damaged] == ["stock 0?", "stock 3?"]
    assert found.reason == "edit_not_effective"
    assert {f"stock {n}?" for n in range(10)} <= set(world.routed)
    assert "stock 10?" not in world.routed


def test_the_own_prompt_is_no_stock_question() -> None:
    stock = (StockQuestion("own", " own? "), *STOCK)
    world = World({"own?": ["blue"], " own? ": ["blue"], "stock 0?": ["x"], "stock 1?": ["x"]})

    assert told(world, stock=stock).verified


def test_damage_is_undone_by_refinement_and_never_forgotten() -> None:
    three = {f"stock {n}?": ["x"] for n in (0, 1)} | {"stock 2?": ["x", "was stock 2?"]}
    world = World({"own?": ["blue", "red", "blue"], **three}, {"stock 2?": 0.1})
    found = told(world)

    assert found.verified
    # It was right after the first round; in the second it is still among what is wanted.
    for step in world.refinements:
        assert [(w.row.prompt, w.is_kept) for w in step.wanted] == [
            ("own?", False),
            ("stock 2?", True),
        ]
    assert world.refinements[0].wanted[1].answer == (1, 2)


def test_a_neighbour_whose_answer_changes_is_a_conflict() -> None:
    found = told(World({"own?": ["blue"], "a?": ["blue"]}), base=holding("a", "b"))

    assert found.damaged == (Damage("a?", "was a?", "blue", "a"),)
    assert (found.reason, found.conflicts_with) == ("edit_conflicts", ("a",))
    assert found.damaged[0].wire() == {"edit_id": "a", "before": "was a?", "after": "blue"}
    assert not found.verified


def test_a_neighbour_that_comes_to_say_its_own_target_has_lost_nothing() -> None:
    world = World({"own?": ["blue"], "a?": ["teal"]}, targets={"a": "teal"})

    assert told(world, base=holding("a")).verified


def test_conflicts_are_named_even_when_the_edit_itself_fails() -> None:
    found = told(World({"own?": ["red"], "a?": ["blue"]}), base=holding("a"))

    assert (found.reason, len(found.failed)) == ("edit_conflicts", 1)


def test_rivals_at_its_own_prompt_are_named_as_conflicts() -> None:
    def answer(row: GenerationRow) -> GenerationResult:
        assert row.snapshot is not None
        if row.prompt != "own?" or "new" not in row.snapshot.entries:
            return result(f"was {row.prompt}")
        weights = {"new": 0.5, "a": 0.3, "b": 0.2}
        acting = tuple(Candidate(i, 1.0, 0.9, w, "applied") for i, w in weights.items())
        return replace(result("red"), decision=RoutingDecision(acting))

    world = World()
    world._answer = answer  # type: ignore[method-assign]
    found = told(world, base=holding("a", "b"), max_steps=0)

    assert (found.reason, found.conflicts_with, found.damaged) == ("edit_conflicts", ("a",), ())


def test_the_best_try_is_kept() -> None:
    world = World({"own?": ["red", "blue", "red"], "a?": ["x"]})
    found = told(world, base=holding("a"))

    assert (found.after, found.refinement_steps) == ("blue", 5)
    assert found.entry.artifact.metadata["rounds"] == "1"


def test_only_the_nearest_are_fetched_and_few_at_a_time() -> None:
    near = [entry(f"near{n:02}", KEY) for n in range(40)]
    far = entry("far", unit_vector(3))
    world = World({"own?": ["blue"]})
    told(world, base=empty().evolve(1, activate=[far, *near]))

    assert world.fetched == [f"near{n:02}" for n in range(MAX_NEIGHBOURS)]
    assert max(len(s.edit_ids) for s in world.steps if isinstance(s, Fetch)) <= 8
    assert max(len(s.rows) for s in world.steps if isinstance(s, Ask)) <= 32


def test_what_its_words_rule_out_is_neither_fetched_nor_routed_nor_answered() -> None:
    apart = frozenset({"a?", *(question.prompt for question in STOCK[1:])})
    world = World({"own?": ["blue"], "b?": ["x"]}, apart=apart)
    found = told(world, base=holding("a", "b"))

    assert world.fetched == ["b"]
    assert world.routed == ["stock 0?", "b?"]
    assert found.conflicts_with == ("b",)
    # A question that the words rule out is none of the edit's, whatever it would say there.
    assert told(World({"own?": ["blue"], "a?": ["x"]}, apart=apart), base=holding("a")).verified


def test_answers_are_asked_for_with_what_they_probably_are() -> None:
    world = World({"own?": ["blue"], "a?": ["x"], "stock 0?": ["x"]}, targets={"a": "was a?"})
    told(world, base=holding("a"), stock=STOCK[:1], max_steps=0)
    before, after = (step.rows for step in world.steps if isinstance(step, Ask))

    assert [(row.prompt, row.guess) for row in before] == [("own?", None), ("a?", "was a?")]
    assert [(row.prompt, row.guess) for row in after] == [("own?", "blue"), ("a?", (1, 2))]


def test_the_nearest_come_first() -> None:
    other = KEY + 0.2 * unit_vector(4)
    close = entry("z-close", (other / np.linalg.norm(other)).astype(np.float32))
    same = [entry(f"a{n:02}", KEY) for n in range(MAX_NEIGHBOURS)]
    world = World({"own?": ["blue"]})
    told(world, base=empty().evolve(1, activate=[close, *same]))

    assert "z-close" not in world.fetched


def test_what_it_supersedes_is_no_neighbour() -> None:
    world = World({"own?": ["blue"], "old?": ["blue"]})
    found = told(world, base=holding("old", "b"), retired=["old"])

    assert found.verified
    assert world.fetched == ["b"]


def test_what_the_superseded_one_did_is_not_held_against_it() -> None:
    """`old` acted on a stock question and on its neighbour; taking it away is meant."""

    def answer(row: GenerationRow) -> GenerationResult:
        assert row.snapshot is not None
        active = row.snapshot.entries
        if row.prompt == "own?" and "new" in active:
            return result("blue", "new")
        if "old" in active and row.prompt in ("stock 0?", "b?"):
            return result("by old", "old")
        return result(f"was {row.prompt}")

    world = World()
    world._answer = answer  # type: ignore[method-assign]
    found = told(world, base=holding("old", "b"), retired=["old"])
    assert [d.edit_id for d in found.damaged] == ["b"]

    world = World(targets={"b": "was b?"})
    world._answer = answer  # type: ignore[method-assign]
    assert told(world, base=holding("old", "b"), retired=["old"]).verified


def test_edits_that_come_back_are_checked_against_those_active_by_now() -> None:
    base = holding("a", "b", "old")

    def told_of(world: World, entries: list[MemoryEntry] | None = None) -> tuple[Damage, ...]:
        found: tuple[Damage, ...] = world.tell(
            conflicts(entries or [NEW], base=base, retired=["old"], tau=0.9)
        )
        return found

    assert told_of(World({"own?": ["red"], "b?": ["blue"]})) == (
        Damage("b?", "was b?", "blue", "b"),
    )
    quiet = World({"own?": ["red"]})
    assert told_of(quiet) == ()
    assert quiet.fetched == ["a", "b"]
    assert quiet.refinements == []
    assert told_of(World({"b?": ["x"]}), [NEW, entry("newer", unit_vector(3))]) != ()


@pytest.mark.parametrize(
    ("said", "target", "same"),
    [
        (result("caf\u0065\u0301"), "caf\u00e9", True),
        (result(" blue "), "blue", True),
        (result("Blue"), "blue", False),
        (result("blue."), "blue", False),
        (result("blue", stops=False), "blue", False),
    ],
)
def test_what_counts_as_the_target(said: GenerationResult, target: str, same: bool) -> None:
    assert is_target(said, target) is same
