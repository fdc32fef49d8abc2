"""What a model's own files say before a weight is read: folders that cannot be served.

Each is refused in one line that names the thing, for what transformers does with them is a
traceback, minutes later, or nothing: an adapter is passed over in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from editing_core.errors import CheckpointUnsupported, UnknownArchitecture

_PACKED_BESIDE = ("quantize_config.json", "hf_quant_config.json", "quant_config.json")
_ADAPTER = "adapter_config.json"
_ENCODER_DECODERS = {"t5", "mt5", "umt5", "bart", "mbart", "t5gemma", "florence2"}


def refuse_unsupported(folder: Path, config: Mapping[str, Any]) -> None:
    """Look at the folder's names and at `config`, which is its `config.json`.

    Raises `UnknownArchitecture` for another layout or kind of decoder, `CheckpointUnsupported` for
    packed weights and adapters.
    """
    if "mm_vision_tower" in config:
        raise UnknownArchitecture(
            f"{folder} is laid out for the original LLaVA code, not for transformers",
            hint="Use the converted checkpoint (llava-hf on the hub has them).",
        )
    _refuse_encoder_decoder(folder, config)
    _refuse_packed(folder, config)
    refuse_adapters(folder)


def refuse_adapters(folder: Path) -> None:
    """Raises `CheckpointUnsupported` where an adapter lies in the folder, or in one beside it."""
    for found in sorted((*folder.glob(_ADAPTER), *folder.glob(f"*/{_ADAPTER}"))):
        raise CheckpointUnsupported(
            f"{found} belongs to an adapter (LoRA), which would not be applied",
            hint="Merge it into the weights (peft: merge_and_unload, then save_pretrained), or "
            "move it out of the folder to serve the model without it.",
        )


def _refuse_encoder_decoder(folder: Path, config: Mapping[str, Any]) -> None:
    text = config.get("text_config")
    text = text if isinstance(text, Mapping) else {}
    family = str(text.get("model_type"))
    is_both = text.get("is_encoder_decoder") or family in _ENCODER_DECODERS
    if is_both or config.get("use_decoder_only_language_model") is False:
        raise UnknownArchitecture(
            f"{folder} answers with an encoder-decoder language model ({family}); only models with "
            "a decoder of uniform blocks are served",
            hint="Use the variant around a decoder, as blip2-opt is of blip2-flan-t5.",
        )


def _refuse_packed(folder: Path, config: Mapping[str, Any]) -> None:
    methods = [_method(each) for each in _quantisations(config)]
    methods += [name for name in _PACKED_BESIDE if (folder / name).is_file()]
    if methods:
        raise CheckpointUnsupported(
            f"{folder} holds weights that are packed already ({methods[0]})",
            hint="Serve the checkpoint that it was made of, with --quantization int8 or int4 if "
            "memory is short.",
        )


def _quantisations(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Of the model and of its parts."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            if name in ("quantization_config", "compression_config"):
                yield value
            else:
                yield from _quantisations(value)


def _method(quantisation: Mapping[str, Any]) -> str:
    return str(quantisation.get("quant_method", "quantization_config"))
