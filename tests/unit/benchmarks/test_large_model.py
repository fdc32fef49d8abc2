"""`benchmarks.large_model` on a tiny shape: every line is measured; and what the large shape is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from benchmarks import large_model_page as page
from benchmarks.large_model import LARGE, main
from benchmarks.random_llava import SHAPES, configuration, embedded_tokenizer
from benchmarks.report import RESULTS
from editing_core.sites import edit_layer_for


def test_the_tiny_shape_is_built_edited_and_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.md"

    main(["--shape", "tiny", "--device", "cpu", "--edits", "1", "--out", str(out)])

    written = out.read_text("utf-8")
    assert written in capsys.readouterr().out
    assert "not run" not in written
    figures = json.loads(out.with_suffix(".json").read_text("utf-8"))["figures"]
    answers = figures[page.ANSWERS]
    for batch in page.BATCHES:
        for side in (page.UNEDITED, page.NONE_FIRED):
            assert answers[f"batch {batch}, {side}"][page.ACTED] == f"0 of {batch}"
        for side in page.FIRED.values():
            assert answers[f"batch {batch}, {side}"][page.ACTED] == f"{batch} of {batch}"
        assert answers[f"batch {batch}, {page.NONE_FIRED}"][page.HELD_EDITS] > 0
    made = figures[page.EDITS]
    assert made["fitted"][page.STEPS] > 0
    assert made["fitted"][page.HOLDS] == "1 of 1"
    assert made["liveedit"][page.STEPS] == "none"
    served = figures[page.HTTP]
    assert served[page.GENERATE["on"]][page.APPLIED] > 0
    assert served[page.GENERATE["off"]][page.APPLIED] == 0
    # Only CUDA can tell.
    assert figures[page.STAGES][page.BUILDING][page.PEAK] == "not measured"


def test_the_large_shape_is_llava_1_5_7b() -> None:
    shape = SHAPES[LARGE]
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(configuration(shape, embedded_tokenizer()))

    assert type(model).__name__ == "LlavaForConditionalGeneration"
    assert sum(parameter.numel() for parameter in model.parameters()) == 7_063_427_072
    assert edit_layer_for(shape.text["num_hidden_layers"]) == 21


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_a_gpu_it_says_what_can_be_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])

    assert "--shape tiny --device cpu" in capsys.readouterr().err


def test_what_was_not_measured_is_not_run() -> None:
    empty = page.page({}, {"shape": LARGE}, why="There is no GPU.")

    assert "There is no GPU." in empty
    for line in (page.BUILDING, *page.EDITORS, *page.GENERATE.values()):
        assert f"| {line} | not run |" in empty


def test_the_committed_page_has_the_lines_that_the_script_writes() -> None:
    committed = (RESULTS / "large-model.md").read_text("utf-8")

    lines = [line.split(" | ")[0] for line in page.page({}, {}).splitlines() if "not run" in line]
    assert [line for line in lines if f"{line} |" not in committed] == []
