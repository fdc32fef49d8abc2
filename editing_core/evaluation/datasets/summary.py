"""What a dataset's file held, and what in it deserves care before its figures are compared."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from editing_core.evaluation.datasets.records import Record
from editing_core.identity import slot_prompt


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts over the records that are used; `skipped` holds those that are not, by reason."""

    source: str
    records: int
    skipped: Mapping[str, int]
    images: int
    images_edited_more_than_once: int
    most_edits_on_one_image: int
    prompts: int
    targets: int
    mean_target_words: float
    contradictions: int
    """Slots (picture and prompt) that records give different targets: the last one wins."""
    already_true: int
    """Edits to what the file says the model answered before."""
    edited_locality: int
    """Image locality probes left out, since another record edits that picture and question."""
    portability: int

    def __str__(self) -> str:
        """A Markdown list."""
        skipped = ", ".join(f"{count:,} for {reason}" for reason, count in self.skipped.items())
        return (
            f"- {self.records:,} edits from {self.source}; left out: {skipped}\n"
            f"- {self.images:,} pictures, {self.images_edited_more_than_once:,} of them edited "
            f"more than once (at most {self.most_edits_on_one_image} times)\n"
            f"- {self.prompts:,} prompts, {self.targets:,} targets of "
            f"{self.mean_target_words:.1f} words on average\n"
            f"- {self.contradictions:,} pictures with two targets for one prompt; "
            f"{self.already_true:,} edits to what was answered before\n"
            f"- {self.portability:,} portability questions; {self.edited_locality:,} image "
            f"locality probes left out because another record edits them"
        )


def summarise(records: Sequence[Record], skipped: Mapping[str, int], *, source: str) -> Summary:
    """Count."""
    edits = Counter(record.image for record in records)
    slots: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in records:
        slots[record.image, slot_prompt(record.prompt)].add(record.target)
    edited = {(record.image, record.prompt) for record in records}
    words = [len(record.target.split()) for record in records]
    return Summary(
        source=source,
        records=len(records),
        skipped=dict(skipped),
        images=len(edits),
        images_edited_more_than_once=sum(count > 1 for count in edits.values()),
        most_edits_on_one_image=max(edits.values(), default=0),
        prompts=len({record.prompt for record in records}),
        targets=len({record.target for record in records}),
        mean_target_words=sum(words) / len(words) if words else 0.0,
        contradictions=sum(len(targets) > 1 for targets in slots.values()),
        already_true=sum(record.before == record.target for record in records),
        edited_locality=sum(
            (record.image_locality, record.image_locality_prompt) in edited for record in records
        ),
        portability=sum(len(record.hops) for record in records),
    )
