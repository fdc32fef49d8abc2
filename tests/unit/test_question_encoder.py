"""The question encoder: trained, stored, loaded, checked; and the keys it makes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from editing_core.errors import CheckpointCorrupt, CheckpointMissing
from editing_core.questions import encoder as module
from editing_core.questions.corpus import read_corpus
from editing_core.questions.encoder import QuestionEncoder, load_encoder
from editing_core.questions.neighbours import neighbours
from editing_core.training.question_run import train_encoder
from editing_core.training.questions import QuestionRecipe
from tests.support.tiny_questions import write_base, write_corpus

RECIPE = QuestionRecipe(rank=2, topics=2, intents=2, confusables=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny encoder after three steps; its base lies beside it."""
    folder = tmp_path_factory.mktemp("questions")
    train_encoder(
        out=folder / "encoder",
        corpus=write_corpus(folder / "corpus"),
        base=write_base(folder / "base"),
        work=folder / "work",
        steps=3,
        seed=1,
        measure_every=2,
        recipe=RECIPE,
    )
    return folder / "encoder"


@pytest.fixture
def encoder(trained: Path) -> QuestionEncoder:
    loaded = load_encoder(trained)
    assert loaded is not None
    return loaded


def test_keys_have_length_one_and_depend_on_the_text_alone(encoder: QuestionEncoder) -> None:
    texts = ["What is the capital?", "who rules", "What is the river of this flag?"]
    keys = encoder.keys(texts)
    assert keys.shape == (3, encoder.dim)
    assert keys.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(keys, axis=1), 1.0, atol=2e-3)
    for text, key in zip(texts, keys, strict=True):
        (alone,) = encoder.keys([text])
        np.testing.assert_array_equal(alone, key)


def test_spaces_forms_and_slips_are_no_difference(encoder: QuestionEncoder) -> None:
    keys = encoder.keys(["What is the capital?", "  what  is the capital?", "waht is the cpaital?"])
    np.testing.assert_allclose(keys, np.broadcast_to(keys[:1], keys.shape), atol=1e-3)


def test_a_remark_in_front_does_not_hide_the_question(encoder: QuestionEncoder) -> None:
    (alone,) = encoder.query_keys("What is the capital?")
    whole, asking = encoder.query_keys("The river of this flag. What is the capital? Who")
    np.testing.assert_allclose(asking, alone, atol=1e-3)
    assert not np.allclose(whole, alone, atol=1e-2)


def test_a_loaded_encoder_makes_the_keys_of_the_one_that_was_written(trained: Path) -> None:
    first, again = load_encoder(trained), load_encoder(trained)
    assert first is not None
    assert again is not None
    assert first.fingerprint == again.fingerprint
    np.testing.assert_array_equal(first.keys(["who rules"]), again.keys(["who rules"]))


def test_a_run_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    corpus, base = write_corpus(tmp_path / "corpus"), write_base(tmp_path / "base")

    def run(name: str, *lengths: int) -> bytes:
        for steps in lengths:
            train_encoder(
                out=tmp_path / f"{name}-out",
                corpus=corpus,
                base=base,
                work=tmp_path / name,
                steps=steps,
                seed=3,
                measure_every=100,
                recipe=RECIPE,
            )
        return (tmp_path / f"{name}-out" / module.DELTA).read_bytes()

    assert run("whole", 2) == run("again", 2, 2)


def test_figures_speak_of_topics_that_were_not_trained_on(encoder: QuestionEncoder) -> None:
    assert encoder.figures["hit where 0.08 of confusables fire"] >= 0.0
    assert set(encoder.line.rho) == {"precision", "balanced", "recall"}
    assert encoder.line.rho["precision"] >= encoder.line.rho["recall"]


def _damaged(folder: Path, name: str) -> None:
    file = folder / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _another_delta(folder: Path) -> None:
    description = json.loads((folder / module.DESCRIPTION).read_text("utf-8"))
    description["fingerprint"] = "sha256:0"
    (folder / module.DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")


def _another_base(folder: Path) -> None:
    description = json.loads((folder / module.DESCRIPTION).read_text("utf-8"))
    description["base"]["sha256"] = "0"
    (folder / module.DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: _damaged(folder, module.DELTA),
        lambda folder: _damaged(folder, module.DESCRIPTION),
        lambda folder: _damaged(folder, "known.safetensors"),
        _another_delta,
        _another_base,
    ],
    ids=["half a delta", "half a description", "half the known", "another delta", "another base"],
)
def test_a_damaged_encoder_is_refused_by_name(
    trained: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(trained, folder)
    damage(folder)
    with pytest.raises(CheckpointCorrupt) as refused:
        load_encoder(folder)
    assert refused.value.message
    assert refused.value.hint


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMissing):
        load_encoder(tmp_path)


def test_without_the_base_package_there_is_no_encoder_and_the_log_says_so(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "shipped"
    shutil.copytree(trained, folder)
    description = json.loads((folder / module.DESCRIPTION).read_text("utf-8"))
    description["base"] = {"package": "no_such_package", "sha256": "0"}
    (folder / module.DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")
    monkeypatch.setattr(module, "SHIPPED", folder)
    assert load_encoder() is None
    assert "no_such_package is not installed" in caplog.text


def test_nearest_intents_are_told_for_the_corpus_it_knows(
    encoder: QuestionEncoder, trained: Path
) -> None:
    corpus = [(intent.topic, intent.name) for intent in read_corpus(trained.parent / "corpus")]
    assert encoder.known is not None
    (key,) = encoder.keys(["what is the capital of this the the ?"])
    nearest = encoder.known.nearest(key, 3, corpus=corpus)
    assert len(set(nearest)) == 3
    assert set(nearest) <= set(range(len(corpus)))
    assert encoder.known.nearest(key, 99, corpus=corpus)[:3] == nearest
    assert encoder.known.nearest(key, 3, corpus=[corpus[0], *corpus[:-1]]) == []
    assert encoder.known.nearest(key, 3, corpus=[(str(i), "") for i in range(999)]) == []


def test_an_encoder_of_another_corpus_knows_no_neighbours(encoder: QuestionEncoder) -> None:
    assert neighbours(encoder, "What is the capital?") == []
