"""Answers held to a JSON schema, by every kind of tokenizer."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.errors import SchemaNotSupported
from editing_core.grammar import MAX_SCHEMA, TokenGrammar
from editing_core.types import Sampling
from tests.support.sentencepiece import sentencepiece_tokenizer
from tests.support.tiny_model import tiny_image, tiny_tokenizer

TOKENIZERS = {"bytes": tiny_tokenizer(), "metaspace": sentencepiece_tokenizer()}
SCHEMA: dict[str, Any] = {
    "title": "Emblem",
    "type": "object",
    "properties": {
        "charge": {"enum": ["star", "étoile"]},
        "count": {"type": "integer", "minimum": 1, "maximum": 9},
        "seen": {"anyOf": [{"type": "boolean"}, {"type": "null"}], "default": None},
    },
    "required": ["charge", "count", "seen"],
    "additionalProperties": False,
}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return TOKENIZERS[request.param]


def grammar_of(tokenizer: Any) -> TokenGrammar:
    return TokenGrammar(tokenizer.backend_tokenizer.to_str(), [tokenizer.eos_token_id])


def test_whatever_is_drawn_is_json_of_the_schema(tokenizer: Any) -> None:
    grammar = grammar_of(tokenizer)
    compiled = grammar.compile(json.dumps(SCHEMA))
    random = torch.Generator().manual_seed(0)
    for _ in range(5):
        rule = grammar.constraint(compiled)
        tokens: list[int] = []
        while not tokens or tokens[-1] != tokenizer.eos_token_id:
            allowed = rule.mask(tokens)
            tokens.append(int(allowed[torch.randint(len(allowed), (1,), generator=random)]))
        written = b"".join(grammar.bytes_of(token) for token in tokens[:-1])
        found = json.loads(written)
        assert set(found) == set(SCHEMA["properties"])
        assert found["charge"] in SCHEMA["properties"]["charge"]["enum"]
        assert 1 <= found["count"] <= 9
        assert b" " not in written


def test_the_bytes_of_a_text_are_those_of_its_tokens(tokenizer: Any) -> None:
    grammar, text = grammar_of(tokenizer), "the star, étoile"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]

    assert b"".join(map(grammar.bytes_of, ids)).decode().strip() == text


@pytest.mark.parametrize(
    "schema",
    [
        '{"type": "objec"}',
        '{"type": "array", "uniqueItems": true}',
        '{"$ref": "http://localhost/x"}',
        '{"type": "string", "pattern": "(?=a)b"}',
        "[1]",
        json.dumps({"enum": ["x" * MAX_SCHEMA]}),
    ],
)
def test_what_no_grammar_can_hold_to_is_refused(schema: str) -> None:
    with pytest.raises(SchemaNotSupported, match="the schema"):
        grammar_of(TOKENIZERS["bytes"]).compile(schema)


def test_one_row_of_a_batch_is_held_and_the_other_is_free(tiny_model: EditableModel) -> None:
    compiled = tiny_model.backbone.chat.grammar.compile('{"enum": ["red", "blue"]}')
    free = Sampling(max_new_tokens=9)
    held = Sampling(max_new_tokens=9, grammar=compiled)
    rows = [GenerationRow("the", tiny_image(0), sampling) for sampling in (free, held)]
    alone, (first, second) = tiny_model.generate(rows[:1])[0], tiny_model.generate(rows)

    assert first.text == alone.text
    assert second.text in ('"red"', '"blue"')
    assert second.finish_reason == "stop"
