"""Models and folders that cannot be served are refused in one line, before anything is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from app.commands import serve
from editing_core.backbones import loading
from editing_core.backbones.loading import find_checkpoint, load_backbone
from editing_core.config import Placement
from editing_core.errors import (
    CheckpointError,
    CheckpointMissing,
    CheckpointUnsupported,
    NotFinite,
    UnknownArchitecture,
)
from tests.support.plain_llava import save_plain_llava
from tests.support.server import logging_restored
from tests.support.tiny_families import FAMILIES, VARIANTS
from tests.support.tiny_model import CHAT_TEMPLATE

TEXT_TEMPLATE = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
SHOWN_TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
THINKING = CHAT_TEMPLATE.replace(
    "{{ '<|' + message.role + '|>\\n' }}",
    "{{ '<|' + message.role + '|>\\n' }}"
    "{% if message.role == 'assistant' %}{{ '<think>\\n\\n</think>\\n' }}{% endif %}",
)
OPENED_THINKING = CHAT_TEMPLATE.replace("'<|assistant|>\\n'", "'<|assistant|>\\n<think>\\n'")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model as `save_pretrained` writes it, to be spoilt."""
    return save_plain_llava(tmp_path / "model")


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weight is read; to name a model is to read all of it."""

    def read(*_: Any, **__: Any) -> str:
        raise AssertionError("weights were read before the model was refused")

    monkeypatch.setattr(loading, "_fingerprint", read)


early = pytest.mark.usefixtures("unread")


def refusal(folder: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        load_backbone(find_checkpoint(folder), Placement.resolve())
    error = caught.value
    assert "\n" not in error.message
    assert error.hint
    return error


def configure(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")


@early
@pytest.mark.parametrize("method", ["awq", "gptq", "bitsandbytes", "fp8", "torchao"])
def test_weights_that_are_packed_already(folder: Path, method: str) -> None:
    configure(folder, quantization_config={"quant_method": method, "bits": 4})
    error = refusal(folder)
    assert isinstance(error, CheckpointUnsupported)
    assert method in error.message
    assert "--quantization" in error.hint


@early
@pytest.mark.parametrize("where", ["text_config", "quantize_config.json"])
def test_packed_weights_that_say_so_elsewhere(folder: Path, where: str) -> None:
    if where == "text_config":
        text = json.loads((folder / "config.json").read_text("utf-8"))["text_config"]
        packed = {"quantization_config": {"quant_method": "compressed-tensors"}}
        configure(folder, text_config=text | packed)
    else:
        (folder / where).write_text("{}")
    assert "packed already" in refusal(folder).message


@early
@pytest.mark.parametrize("place", [".", "adapter"])
def test_an_adapter_beside_the_weights(folder: Path, place: str) -> None:
    (folder / place).mkdir(exist_ok=True)
    (folder / place / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    error = refusal(folder)
    assert "adapter" in error.message
    assert "Merge" in error.hint


def test_an_adapter_without_its_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(CheckpointUnsupported, match="adapter"):
        find_checkpoint(tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(CheckpointMissing, match=r"config\.json"):
        find_checkpoint(tmp_path)


@early
def test_a_folder_of_the_original_llava_code(folder: Path) -> None:
    configure(folder, mm_vision_tower="openai/clip-vit-large-patch14-336")
    error = refusal(folder)
    assert isinstance(error, UnknownArchitecture)
    assert "original LLaVA" in error.message


@early
def test_blip_2_around_an_encoder_decoder(tmp_path: Path) -> None:
    FAMILIES["blip-2"].save(tmp_path)
    configure(tmp_path, text_config={"model_type": "t5", "vocab_size": 300})
    error = refusal(tmp_path)
    assert isinstance(error, UnknownArchitecture)
    assert "encoder-decoder" in error.message
    assert "t5" in error.message


@early
def test_a_tower_that_nobody_knows_is_named(folder: Path) -> None:
    configure(folder, vision_config={"model_type": "pixtral", "image_size": 48, "patch_size": 12})
    error = refusal(folder)
    assert isinstance(error, UnknownArchitecture)
    assert "'pixtral'" in error.message
    assert "siglip_vision_model" in error.message


@early
@pytest.mark.parametrize(
    ("template", "said"),
    [
        (THINKING, "<think>"),
        (OPENED_THINKING, "<think>"),
        (TEXT_TEMPLATE, "cannot write a question about a picture"),
        (SHOWN_TEMPLATE, "exactly once"),
        ("{{ raise_exception('only tools') }}", "only tools"),
        ("{% for m in messages %}{{ m.role }", "cannot write"),
        ("{% for m in messages %}{{ m.content[7].text }}{% endfor %}", "cannot write"),
        (CHAT_TEMPLATE.replace("'<image>\\n'", "''"), "image tokens"),
    ],
    ids=["thinks", "thinks first", "text", "shown", "raises", "syntax", "index", "no picture"],
)
def test_a_template_that_does_not_fit(folder: Path, template: str, said: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    error = refusal(folder)
    assert said in error.message
    assert "template" in error.message
    assert "chat_template.jinja" in error.hint


def with_templates(folder: Path, *names: str) -> None:
    """In the form of a list, as older folders have them."""
    file = folder / "tokenizer_config.json"
    templates = [{"name": name, "template": CHAT_TEMPLATE} for name in names]
    described = json.loads(file.read_text("utf-8")) | {"chat_template": templates}
    file.write_text(json.dumps(described), "utf-8")


@early
def test_named_templates_without_a_default(folder: Path) -> None:
    with_templates(folder, "rag", "tool_use")
    error = refusal(folder)
    assert "rag, tool_use" in error.message
    assert "chat_template.jinja" in error.hint


def test_of_named_templates_the_default_is_taken(folder: Path) -> None:
    with_templates(folder, "rag", "default")
    backbone = load_backbone(find_checkpoint(folder), Placement.resolve())
    assert "<|user|>" in backbone.text_of(backbone.lay_out("q", has_image=False).ids)


@pytest.mark.parametrize("name", ["llava_next", "llava_onevision"])
def test_an_older_folder_without_a_processors_settings_is_served(name: str, tmp_path: Path) -> None:
    """They kept the image processor's and the tokenizer's only; the model's own numbers do."""
    FAMILIES[name].save(tmp_path)
    whole = load_backbone(find_checkpoint(tmp_path), Placement.resolve())
    file = tmp_path / "processor_config.json"
    settings = json.loads(file.read_text("utf-8"))
    images = settings["image_processor"]
    template = (tmp_path / "chat_template.jinja").read_text("utf-8")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(images), "utf-8")
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": template}), "utf-8")
    file.unlink()
    (tmp_path / "chat_template.jinja").unlink()

    older = load_backbone(find_checkpoint(tmp_path), Placement.resolve())

    assert older.usual_picture == whole.usual_picture


def test_a_tower_and_a_strategy_that_do_not_fit(tmp_path: Path) -> None:
    VARIANTS["llava_next, siglip"].save(tmp_path)
    configure(tmp_path, vision_feature_select_strategy="default")
    error = refusal(tmp_path)
    assert isinstance(error, CheckpointUnsupported)
    assert "fails on a plain picture" in error.message


def test_weights_that_give_no_numbers(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("norm.weight"))
    weights[name].fill_(torch.nan)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NotFinite, match="plain answer") as caught:
        load_backbone(find_checkpoint(folder), Placement.resolve())
    assert "--dtype" in caught.value.hint


def test_the_server_says_it_in_one_line(folder: Path, tmp_path: Path) -> None:
    (folder / "chat_template.jinja").write_text(THINKING)
    arguments = ["--model", str(folder), "--data-dir", str(tmp_path / "data"), "--port", "0"]

    with logging_restored():
        result = CliRunner().invoke(serve.app, [*arguments, "--device", "cpu"])

    assert result.exit_code == 1
    assert "Traceback" not in result.output
    message = next(line for line in result.output.splitlines() if "cannot start" in line)
    assert "<think>" in message
    assert "chat_template.jinja" in message
