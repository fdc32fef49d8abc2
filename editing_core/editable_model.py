"""A backbone with its router and editors: ask it, edit it, and ask it with edits.

    model = EditableModel.load()
    artifact = model.encode(EditRequest(image, "What colour is the star?", "blue"))
    snapshot = model.empty_snapshot().evolve(1, activate=[MemoryEntry("e1", artifact, digest, ...)])
    model.generate([GenerationRow("Which colour has the star?", other_view, snapshot=snapshot)])

The model holds no edits: they come in with each row, as a snapshot. Nothing here changes after
`load`. Calls that run the model belong on one thread at a time; `validate` may run beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import PreparedBatch, PreparedRow, PromptRow, in_pieces
from editing_core.backbones.chat import normalise
from editing_core.backbones.loading import find_checkpoint, load_backbone
from editing_core.batching.batch import DecodeBatch
from editing_core.batching.beginnings import Beginnings
from editing_core.batching.cache import can_join
from editing_core.batching.entering import Entering, Entrance
from editing_core.batching.rows import Key
from editing_core.checkpoint import EMBEDDED
from editing_core.choosing import logprobs_of
from editing_core.config import MAX_TARGET_TOKENS, Placement
from editing_core.edited_pass import EditedPass, ReadStates
from editing_core.editors.base import Editor
from editing_core.errors import (
    ArtifactCorrupt,
    ContextTooLong,
    FingerprintMismatch,
    NotFinite,
    StaleArtifact,
    TargetTooLong,
)
from editing_core.experts.memory import Snapshot
from editing_core.experts.rounding import rounded_payload
from editing_core.eyes.eyes import Eyes, load_eyes
from editing_core.fitting import EditRows
from editing_core.generation import (
    GenerationRow,
    IsCancelled,
    OnTokens,
    raise_if,
    refuse_not_finite,
    run,
)
from editing_core.guesses import confirmed
from editing_core.parts import default_editor, load_parts
from editing_core.questions.encoder import QuestionEncoder, load_encoder
from editing_core.refinement import (
    ANSWERS,
    MAX_STEPS,
    Aim,
    RefinedPass,
    Refinement,
    Wanted,
    refine,
    roles_of,
)
from editing_core.registry import EDITORS, OBJECTIVES
from editing_core.routing.base import RouterBase
from editing_core.routing.wordings import Comparer, Worded
from editing_core.states import RoutingStates
from editing_core.stock_questions import StockQuestion, default_questions, questions_of
from editing_core.types import (
    EditArtifact,
    EditRequest,
    GenerationResult,
    ImageArray,
    Notify,
    OnProgress,
    PictureKey,
    RoutingDecision,
    RoutingKey,
    TokenLogprob,
)

__all__ = ["EditableModel", "GenerationRow"]

_TEXT_ROWS = 256
_QUESTIONS_AT_ONCE = 8


class EditableModel:
    """See the module's docstring."""

    def __init__(
        self,
        backbone: Backbone,
        router: RouterBase,
        editors: Mapping[str, Editor],
        *,
        stock_questions: Sequence[StockQuestion] | None = None,
        questions: QuestionEncoder | None = None,
    ) -> None:
        _check_fit(backbone, router, editors)
        self.stock_questions = tuple(
            default_questions() if stock_questions is None else stock_questions
        )
        self.backbone = backbone
        self.router = router
        self.editors = dict(editors)
        self.questions = questions
        self._compare = (
            None if questions is None else Comparer(questions, prefer=router.thresholds.prefer)
        )
        self.rows_join = can_join(backbone.new_cache())
        """Whether a row may decode beside others that came before it; else it decodes alone."""
        self.beginnings_are_shared = self.rows_join and backbone.continues_anywhere
        """Whether rows that begin alike are run on from one beginning."""

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        device: str = "cpu",
        dtype: str = "fp32",
        quantization: str = "none",
        revision: str | None = None,
        clip: Path | None = None,
        trust_remote_code: bool = False,
        editors: Sequence[str] | None = None,
        where_there: Sequence[str] = (),
        parts: Path | None = None,
        notify: Notify | None = None,
        questions: str | Path = "shipped",
        eyes: str | Path = "shipped",
    ) -> EditableModel:
        """Load a checkpoint: None or `heraldry` is the embedded one, else a folder or hub id.

        It must have all of `editors`; of `where_there` those are loaded that it has. With None it
        is the default editor, if the model has one that fits. `parts` is a folder for what is
        measured of backbones that nothing was trained for (`editing_core/parts.py`), told to
        `notify`. `clip` is the folder of a CLIPModel that makes image keys, for models that bring
        none. `questions` is the question encoder: `shipped`, where its base is installed, `none`
        (then the router's own keys compare texts), or a folder that training made. `eyes`, chosen
        likewise, make the embedded model's keys of pictures that its CLIP does not know. The rest
        is as `find_checkpoint` and `Placement.resolve` take it.

        Raises `CheckpointMissing`, `CheckpointCorrupt` (naming the file), `FingerprintMismatch`
        when router or editors were made for another backbone, `UnknownArchitecture`, and
        `LookupError` on an unknown editor.
        """
        for name in (*(editors or ()), *where_there):
            EDITORS.resolve(name)
        placement = Placement.resolve(device, dtype, quantization)
        layout = find_checkpoint(path, revision=revision, with_code=trust_remote_code)
        backbone = load_backbone(
            layout,
            placement,
            clip=clip,
            trust_remote_code=trust_remote_code,
            parts=parts,
            eyes=_eyes(eyes) if layout.root == EMBEDDED else None,
        )
        found = load_parts(
            layout,
            backbone,
            editors=editors,
            where_there=where_there,
            parts=parts,
            notify=notify,
        )
        router = found.router.to(placement.device)
        for editor in found.editors.values():
            for module in editor.trainable_modules():
                module.to(placement.device)
        return cls(
            backbone,
            router,
            found.editors,
            stock_questions=questions_of(layout),
            questions=_question_encoder(questions),
        )

    @property
    def default_editor(self) -> str | None:
        """The editor of this model to use where none is named; None if it has none that fits."""
        return default_editor(tuple(self.editors))

    @property
    def backbone_fingerprint(self) -> str:
        """Identity of the base model's weights and configuration."""
        return self.backbone.fingerprint

    @property
    def router_fingerprint(self) -> str:
        """Identity of what makes routing keys; thresholds are no part of it."""
        return self.router.fingerprint

    @property
    def eyes_fingerprint(self) -> str:
        """Identity of what makes image keys beside the backbone; empty where nothing does."""
        return self.backbone.eyes_fingerprint

    @property
    def editor_fingerprints(self) -> Mapping[str, str]:
        """Identity of each editor's weights and configuration."""
        return {name: editor.fingerprint for name, editor in self.editors.items()}

    def empty_snapshot(self) -> Snapshot:
        """Version 0: no edits."""
        return Snapshot.empty(self.backbone.image_key_dim)

    def validate(self, request: EditRequest, *, editor: str) -> None:
        """Refuse, by tokenizer and image processor alone, what `encode` would refuse.

        Raises `TargetTooLong`, `TargetNotEncodable`, `ContextTooLong`, `PictureNotReadable`, and
        `LookupError` on an editor that is not loaded.
        """
        self._editor(editor)
        target_ids = self._encode_target(request.target)
        prompts = (request.prompt, *request.rephrases, *request.not_for)
        for prompt in prompts:
            self._check_prompt(prompt)
        picture = self.backbone.picture_of(request.image)
        for prompt in prompts:
            self.backbone.lay_out(prompt, has_image=True, target_ids=target_ids, pictures=[picture])

    @torch.no_grad()
    def encode(
        self,
        request: EditRequest,
        *,
        editor: str = "liveedit",
        is_cancelled: IsCancelled | None = None,
        on_progress: OnProgress | None = None,
    ) -> EditArtifact:
        """Make an edit. Pure: nothing is kept, and the same request gives the same artifact.

        The payload is rounded to what will be stored. An editor that fits its experts
        takes gradient steps here, told to `on_progress(done, most, loss)` between them, where the
        model is as ever and may be asked other things; an expert that does not make the target the
        answer is returned as it is, for verification to judge.

        Raises what `validate` raises, `ArtifactCorrupt` when the expert's numbers are no
        numbers, `NotFinite` where the model's own do not come, and `GenerationCancelled` before
        the next pass once `is_cancelled` says so.
        """
        self.validate(request, editor=editor)
        raise_if(is_cancelled)
        chosen, target_ids = self._editor(editor), self._encode_target(request.target)
        batch = self.backbone.prepare(
            [PromptRow(request.prompt, request.image, target_ids=target_ids)]
        )
        found = self.backbone.states(batch, (self.router.layer, chosen.edit_layer))
        features = batch.rows[0].features
        assert features is not None
        given = (*found.values(), torch.from_numpy(features.key))
        if not all(bool(numbers.isfinite().all()) for numbers in given):
            raise NotFinite("the model gave no numbers for this edit's question (NaN or infinity)")
        key = self._routing_key(request, batch, found[self.router.layer])
        raise_if(is_cancelled)
        rows = EditRows.see(
            request,
            target_ids,
            batch,
            found[chosen.edit_layer],
            backbone=self.backbone,
            editor=chosen,
        )
        payload, metadata = chosen.encode(*rows.states())
        stored = rounded_payload(payload)
        for name, tensor in stored.items():
            if not bool(torch.isfinite(tensor).all()):
                raise ArtifactCorrupt(f"the expert's {name} cannot be stored", field=name)
        artifact = EditArtifact(
            editor=editor,
            edit_layer=chosen.edit_layer,
            positions=chosen.positions,
            payload=stored,
            key=key,
            backbone_fingerprint=self.backbone_fingerprint,
            editor_fingerprint=chosen.fingerprint,
            router_fingerprint=self.router_fingerprint,
            metadata=dict(metadata),
        ).seen_by(self.eyes_fingerprint, PictureKey(key.image, key.sketch))
        return rows.fit(artifact, chosen, is_cancelled=is_cancelled, on_progress=on_progress)

    @torch.no_grad()
    def rescope(self, artifact: EditArtifact, request: EditRequest) -> EditArtifact:
        """The same edit under new keys: `request` is its own, with other wordings.

        The expert is the same, tensor by tensor. Raises what `validate` raises, and
        `StaleArtifact` when other weights made the edit.
        """
        self.validate(request, editor=artifact.editor)
        self.check_current("that changes its scope", artifact)
        target_ids = self._encode_target(request.target)
        batch = self.backbone.prepare(
            [PromptRow(request.prompt, request.image, target_ids=target_ids)]
        )
        states = self.backbone.states(batch, (self.router.layer,))[self.router.layer]
        key = self._routing_key(request, batch, states)
        made = PictureKey(key.image, key.sketch)
        return replace(artifact, key=key).seen_by(self.eyes_fingerprint, made)

    def image_key(self, image: ImageArray) -> NDArray[np.float32]:
        """What the hard filter compares: float32 `[image_key_dim]`, L2-normalised."""
        return self.picture_key(image).image

    def picture_key(self, image: ImageArray) -> PictureKey:
        """What a picture is known by: what the hard filter compares, and the eyes' sketch."""
        features = self.backbone.image_features([image])[0]
        return PictureKey(features.key, features.sketch)

    @torch.no_grad()
    def generate(
        self,
        rows: Sequence[GenerationRow],
        *,
        on_tokens: OnTokens | None = None,
        is_cancelled: IsCancelled | None = None,
    ) -> list[GenerationResult]:
        """Continue all rows in one batch; results in their order.

        `on_tokens(row, delta)` is called as text becomes certain; a row's joined deltas equal its
        result's text. Raises `ContextTooLong`, `StaleArtifact` naming the edit, `NotFinite`,
        `GenerationCancelled`.
        """
        raise_if(is_cancelled)
        prepared = [self.prepare(row) for row in rows]
        found = self.confirm(prepared, dict(enumerate(rows)))
        for b, result in found.items():
            if on_tokens is not None and result.text:
                on_tokens(b, result.text)
        left = [b for b in range(len(rows)) if b not in found]
        if left:
            batch = self.backbone.collate([prepared[b] for b in left])
            edited = self.edited_pass(batch, [rows[b].snapshot for b in left])
            results = run(
                self.backbone,
                batch,
                [rows[b].sampling for b in left],
                edited,
                on_tokens=on_tokens and (lambda b, delta: on_tokens(left[b], delta)),
                is_cancelled=is_cancelled,
            )
            found |= dict(zip(left, results, strict=True))
        return [found[b] for b in range(len(rows))]

    def prepare(self, row: GenerationRow) -> PreparedRow:
        """What `begin` takes of a row: its tokens, and its pictures looked at.

        Raises the library's `RequestError`s.
        """
        self._check_prompt("".join(turn.text for turn in row.turns) or row.prompt)
        return self.backbone.prepare_row(row.as_prompt)

    def begin(
        self,
        prepared: Sequence[PreparedRow],
        rows: Mapping[Key, GenerationRow],
        *,
        beginnings: Beginnings | None = None,
    ) -> DecodeBatch[Key]:
        """Prefill `rows`, by the caller's names for them, and hand them on for decoding.

        `prepared` are they, in their order. `beginnings` are used and added to, where the family's
        rows may be run on from one. Raises `StaleArtifact` naming the edit.
        """
        entrance = Entrance(
            self.backbone, self.edited_pass, beginnings if self.beginnings_are_shared else None
        )
        pairs = zip(rows.items(), prepared, strict=True)
        return entrance.enter([Entering(key, each, row) for (key, row), each in pairs])

    @torch.no_grad()
    def confirm(
        self, prepared: Sequence[PreparedRow], rows: Mapping[Key, GenerationRow]
    ) -> dict[Key, GenerationResult]:
        """Results of those `rows` whose guesses are right, in one pass; the others are to begin.

        `prepared` are they, in their order. Decisions name no edit whose words do not fit. Raises
        `StaleArtifact` naming the edit.
        """
        return confirmed(
            prepared,
            rows,
            backbone=self.backbone,
            encode_target=self._encode_target,
            make_pass=partial(self.edited_pass, names_all=False),
        )

    @torch.no_grad()
    def decide(
        self,
        rows: Sequence[GenerationRow],
        *,
        tokens_at_once: int,
        is_cancelled: IsCancelled | None = None,
    ) -> list[RoutingDecision]:
        """Which edits would act on each row, and how strongly, without an answer.

        Where texts are compared apart from pictures, edits whose words do not fit are not named.

        The blocks up to the router's layer are run, on as many rows at once as have so many tokens,
        padding counted; a row that has more is run alone, as all are of models whose rows cannot
        join. Raises what `prepare` raises, and `GenerationCancelled`.
        """
        decisions: list[RoutingDecision] = []
        prepared: list[PreparedRow] = []
        for row in rows:
            raise_if(is_cancelled)  # a picture may have to be looked at
            prepared.append(self.prepare(row))
        most = tokens_at_once if self.rows_join else 1
        for some in in_pieces([len(each.ids) for each in prepared], most):
            raise_if(is_cancelled)
            batch = self.backbone.collate(prepared[some])
            snapshots = [row.snapshot for row in rows[some]]
            edited = self.edited_pass(batch, snapshots, names_all=False)
            if not edited.is_decided:
                edited.decide(self.backbone.lower(batch, self.router.layer))
            decisions += edited.decisions
        return decisions

    def may_mean(
        self,
        questions: Sequence[str],
        edits: Sequence[Worded],
        *,
        is_cancelled: IsCancelled | None = None,
    ) -> list[bool]:
        """Whether one of the edits may act at each question, by its text alone.

        What is False here, no picture changes. Where texts are not compared apart from pictures,
        all may. Raises `GenerationCancelled`.
        """
        if self._compare is None or self.router.thresholds.rule == "paper" or not edits:
            return [bool(edits)] * len(questions)
        may: list[bool] = []
        for start in range(0, len(questions), _QUESTIONS_AT_ONCE):
            raise_if(is_cancelled)
            some = questions[start : start + _QUESTIONS_AT_ONCE]
            matches = self._compare([(question, edits) for question in some])
            may += [bool(match.passes.any()) for match in matches]
        return may

    @torch.no_grad()
    def token_logits(self, row: GenerationRow, token_ids: Sequence[int]) -> Tensor:
        """Teacher-forced edited forward: float32 `[len(token_ids), vocab]`.

        Line i holds the logits from which token i would be chosen, after the tokens before it.
        Routed as `generate` routes: on the prompt's rows only.
        """
        batch = self.backbone.prepare(
            [PromptRow(row.prompt, row.image, target_ids=tuple(token_ids))]
        )
        edited = self.edited_pass(batch, [row.snapshot])
        logits = self.backbone.forward(batch, taps=edited.prefill_taps())[0]
        first = batch.rows[0].spans.last_prompt
        return logits[first : first + len(token_ids)]

    def text_ids(self, text: str) -> tuple[int, ...]:
        """Tokens of a text that is to be continued as it stands. Raises `ContextTooLong`."""
        self._check_prompt(text)
        return self.backbone.chat.encode_text(text)

    @torch.no_grad()
    def text_logprobs(self, ids: Sequence[int], *, top: int) -> list[TokenLogprob]:
        """The base model's log-probability of each token of a text after the first.

        Raises `ContextTooLong` and `NotFinite`.
        """
        batch = self.backbone.prepare([PromptRow("", ids=tuple(ids))])
        states = self.backbone.last_states(batch)[0, :-1]
        found: list[TokenLogprob] = []
        # Piece by piece: the logits of a long text would fill the memory of the device.
        for first in range(0, len(states), _TEXT_ROWS):
            logits = self.backbone.logits(states[first : first + _TEXT_ROWS])
            refuse_not_finite(logits, range(len(logits)))
            found += logprobs_of(logits, ids[first + 1 : first + 1 + len(logits)], top)
        return found

    @torch.no_grad()
    def refine(
        self,
        edit_id: str,
        wanted: Sequence[Wanted],
        *,
        max_steps: int = MAX_STEPS,
        objective: str = ANSWERS,
        is_cancelled: IsCancelled | None = None,
    ) -> Refinement:
        """Gradient steps on the expert of one edit, until every wanted answer is given.

        The edit lies in the snapshot of each row; its keys, every other edit and the base model
        stay as they are. Stops at the first expert, rounded as it will be stored, whose rows are
        all right; after `max_steps` it gives up. `objective` names what the steps minimise:
        `answers`, the cross entropy of what is wanted, or one of the registry, to which the first
        prompt that must answer anew is the edit, further ones are its rephrases, and kept answers
        lie out of scope.

        Raises what `generate` raises, `ArtifactCorrupt` when the expert outgrows float32, and
        `LookupError` on an unknown objective.
        """
        # First, so that a wrong name is told even where no step would be made.
        chosen = None if objective == ANSWERS else OBJECTIVES.resolve(objective).at_edit_time()
        artifact = _shared_artifact(edit_id, wanted)
        answers = [
            self._encode_target(w.answer) if isinstance(w.answer, str) else w.answer for w in wanted
        ]
        batch = self.backbone.prepare(
            [
                PromptRow(w.row.prompt, w.row.image, target_ids=ids)
                for w, ids in zip(wanted, answers, strict=True)
            ]
        )
        snapshots = [w.row.snapshot for w in wanted]
        routed = self.edited_pass(batch, snapshots)
        self.backbone.forward(batch, taps=routed.prefill_taps())
        selected = [
            [(c.edit_id, snapshot.entries[c.edit_id].artifact, c.weight) for c in decision.applied]
            for decision, snapshot in zip(routed.decisions, snapshots, strict=True)
            if snapshot is not None
        ]
        if not any(edit_id == acting for experts in selected for acting, _, _ in experts):
            # Nothing that the expert holds can change an answer.
            return Refinement(artifact, steps=0, is_right=False)
        passes = RefinedPass(batch, selected, backbone=self.backbone, editors=self.editors)
        aim = None
        if chosen is not None:
            before = [_without(edit_id, snapshot) for snapshot in snapshots]
            taps = self.edited_pass(batch, before).prefill_taps()
            base = passes.answers(self.backbone.forward(batch, taps=taps))
            aim = Aim(chosen, roles_of(wanted), base)
        editor, keeps = self._editor(artifact.editor), any(w.is_kept for w in wanted)
        start = editor.guarded(artifact) if keeps else artifact
        refined = refine(
            edit_id,
            start,
            [(passes, answers)],
            movable=editor.movable(artifact, keeps=keeps),
            max_steps=max_steps,
            aim=aim,
            is_cancelled=is_cancelled,
        )
        if start is not artifact and not refined.steps:
            # A guard was all it took, and is a step of its own: another expert is to be tried.
            refined = replace(refined, steps=1)
        return refined

    def edited_pass(
        self,
        batch: PreparedBatch,
        snapshots: Sequence[Snapshot | None],
        read_kept: ReadStates | None = None,
        *,
        names_all: bool = True,
    ) -> EditedPass:
        """One batch's way through this model, row b with the edits of `snapshots[b]`.

        `read_kept` and `names_all` as `EditedPass` takes them.
        """
        return EditedPass(
            batch,
            snapshots,
            router=self.router,
            read_words=self.backbone.word_states,
            read_pictures=self.backbone.picture_states,
            read_kept=read_kept,
            compare=self._compare,
            judge=None if self.backbone.eyes is None else self.backbone.eyes.same,
            editors=self.editors,
            check=self.check_current,
            names_all=names_all or self.router.thresholds.rule == "paper",
        )

    def forget_questions(self) -> None:
        """Read and compare every question again, as if it were new. For measurements."""
        self.backbone.forget_words()
        if self.questions is not None and self._compare is not None:
            self.questions.forget()
            self._compare.forget()

    def check_current(self, edit_id: str, artifact: EditArtifact) -> None:
        """Raise `StaleArtifact`, naming the edit, when other weights than these made it."""
        editor = self.editors.get(artifact.editor)
        if editor is None:
            raise StaleArtifact(
                f"edit {edit_id} needs the editor {artifact.editor!r}, which is not loaded"
            )
        for part, made_by, loaded in (
            ("backbone", artifact.backbone_fingerprint, self.backbone_fingerprint),
            ("router", artifact.router_fingerprint, self.router_fingerprint),
            (f"editor {artifact.editor!r}", artifact.editor_fingerprint, editor.fingerprint),
        ):
            if made_by != loaded:
                raise StaleArtifact(f"edit {edit_id} was made by another {part} ({made_by})")

    def _routing_key(
        self, request: EditRequest, batch: PreparedBatch, states: Tensor
    ) -> RoutingKey:
        """What the edit is filed under. `states [1, rows, hidden]` of its own row."""
        own = batch.rows[0]
        assert own.features is not None
        assert own.spans.vision is not None
        seen = states[0, own.spans.vision_rows].float()
        wordings = [self.backbone.lay_out(text, has_image=True) for text in request.rephrases]
        words, *others = self.backbone.word_states([own, *wordings], self.router.layer)
        key = self.router.keys(
            RoutingStates(image=seen, words=words), own.features.key, rephrases=others
        )
        return replace(key, sketch=own.features.sketch)

    def _editor(self, name: str) -> Editor:
        try:
            return self.editors[name]
        except KeyError:
            known = ", ".join(self.editors) or "none, so this model answers but takes no edits"
            raise LookupError(f"editor {name!r} is not loaded; loaded: {known}") from None

    def _encode_target(self, target: str) -> tuple[int, ...]:
        chat = self.backbone.chat
        # Counting characters first keeps a megabyte of text away from the tokenizer.
        if _is_longer(target, MAX_TARGET_TOKENS * chat.longest_token):
            raise TargetTooLong(f"the target has more than {MAX_TARGET_TOKENS} tokens")
        ids = chat.encode_target(target)
        if len(ids) > MAX_TARGET_TOKENS:
            raise TargetTooLong(f"the target has {len(ids)} tokens, more than {MAX_TARGET_TOKENS}")
        return ids

    def _check_prompt(self, prompt: str) -> None:
        limit = self.backbone.max_positions
        if _is_longer(prompt, limit * self.backbone.chat.longest_token):
            raise ContextTooLong(f"the prompt has more than the {limit} tokens the model reads")


def _eyes(chosen: str | Path) -> Eyes | None:
    if chosen == "none":
        return None
    return load_eyes(None if chosen == "shipped" else Path(chosen))


def _question_encoder(chosen: str | Path) -> QuestionEncoder | None:
    if chosen == "none":
        return None
    return load_encoder(None if chosen == "shipped" else Path(chosen))


def _shared_artifact(edit_id: str, wanted: Sequence[Wanted]) -> EditArtifact:
    """The edit's artifact, the same in the snapshot of every row."""
    found = [w.row.snapshot.entries.get(edit_id) if w.row.snapshot else None for w in wanted]
    first = found[0] if found else None
    if first is None or any(entry is not first for entry in found):
        raise ValueError(f"edit {edit_id} must be one and the same in the snapshot of every row")
    return first.artifact


def _without(edit_id: str, snapshot: Snapshot | None) -> Snapshot | None:
    """What was in force before the edit, or would be if it were gone."""
    if snapshot is None:
        return None
    return snapshot.evolve(snapshot.version + 1, deactivate=[edit_id])


def _check_fit(backbone: Backbone, router: RouterBase, editors: Mapping[str, Editor]) -> None:
    """Raise `FingerprintMismatch` unless the parts were made for each other."""
    if router.backbone_fingerprint not in ("", backbone.fingerprint):
        raise FingerprintMismatch(
            f"the router was trained on another backbone, {router.backbone_fingerprint}; "
            f"this one is {backbone.fingerprint}"
        )
    if router.image_key_model != backbone.image_key_model:
        raise FingerprintMismatch(
            f"the router was calibrated for image keys of {router.image_key_model!r}, "
            f"the backbone makes those of {backbone.image_key_model!r}"
        )
    for name, editor in editors.items():
        made_for = getattr(editor, "backbone_fingerprint", "")
        if made_for not in ("", backbone.fingerprint):
            raise FingerprintMismatch(
                f"the editor {name!r} was trained on another backbone, {made_for}; "
                f"this one is {backbone.fingerprint}"
            )
        if not router.layer <= editor.edit_layer < backbone.num_layers:
            raise FingerprintMismatch(
                f"the editor {name!r} acts at layer {editor.edit_layer}; it must lie between the "
                f"router's layer {router.layer} and the last, {backbone.num_layers - 1}"
            )


def _is_longer(text: str, characters: int) -> bool:
    """Whether it has more once it is normalised, which makes it at most four times shorter."""
    return len(text) > 4 * characters or len(normalise(text)) > characters
