"""From a record and its decoded pictures to the bench's case: which probe asks what."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from editing_core.evaluation.datasets.records import Record
from editing_core.evaluation.probes import PORTABILITY, RELIABILITY, EditCase, EditProbe
from editing_core.types import ImageArray

GREY: ImageArray = np.full((336, 336, 3), 128, dtype=np.uint8)
"""A picture of nothing."""


def case_of(
    record: Record,
    pixels: Sequence[ImageArray],
    *,
    edited: Collection[str],
    slots: Collection[tuple[str, str]],
    kind: str,
) -> EditCase:
    """The case of `record`, whose pictures `pixels` holds in the order of `record.images`.

    `edited` holds every picture of an edited thing, `slots` every edited picture and prompt: a
    probe that asks what another record edits is left out, since there a change is right.
    """
    image, other_view, bystander = pixels
    probes = [
        EditProbe(RELIABILITY, image, record.prompt),
        EditProbe("text generality", image, record.rephrase),
        EditProbe("image generality", other_view, record.prompt),
        EditProbe("both generalities", other_view, record.rephrase),
        *(EditProbe(PORTABILITY, image, hop.question, hop.answer) for hop in record.hops),
        EditProbe("text locality", None, record.text_locality),
    ]
    if (record.image_locality, record.image_locality_prompt) not in slots:
        probes.append(EditProbe("image locality", bystander, record.image_locality_prompt))
    probes += [
        EditProbe("no image, same question", None, record.prompt),
        EditProbe("same image, other question", image, record.text_locality),
        EditProbe("grey image, same question", GREY, record.prompt),
    ]
    if record.image_locality not in edited:
        probes.append(EditProbe("random image, same question", bystander, record.prompt))
    return EditCase(
        seed=record.index,
        image=image,
        prompt=record.prompt,
        target=record.target,
        question_kind=kind,
        target_group="one word" if len(record.target.split()) == 1 else "several words",
        probes=tuple(probes),
    )
