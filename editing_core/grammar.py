"""Which tokens may come next, where an answer must be JSON of a given schema.

Schemas are compiled by llguidance, which reads the tokenizer's own description: byte-level BPE and
SentencePiece alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor

from editing_core.errors import SchemaNotSupported

MAX_SCHEMA = 64 * 1024
"""Characters of a schema, as JSON."""


class Constraint(Protocol):
    """One row's rule, asked once before each of its tokens. Not shared between rows."""

    def mask(self, tokens: Sequence[int]) -> Tensor:
        """The tokens that may follow the row's `tokens` so far: int64 `[allowed]`, never empty.

        `tokens` begins with what it was at the call before.
        """
        ...


class TokenGrammar:
    """One tokenizer as grammars see it: the bytes of each token, and which of them end an answer.

    `description` is the tokenizer's `tokenizer.json`. Immutable; may be used from several threads.
    """

    def __init__(self, description: str, stop_token_ids: Sequence[int]) -> None:
        self._tokenizer = LLTokenizer(description, eos_token=list(stop_token_ids))
        self._stop_token_ids = tuple(stop_token_ids)

    def bytes_of(self, token: int) -> bytes:
        """What a token writes. Not every token is whole characters."""
        return self._tokenizer.decode_bytes([token])

    def compile(self, schema: str) -> str:
        """A grammar of compact JSON for `schema`, itself JSON. Raises `SchemaNotSupported`."""
        if len(schema) > MAX_SCHEMA:
            raise SchemaNotSupported(f"the schema is longer than {MAX_SCHEMA:,} characters")
        # White space between tokens of JSON could go on for ever, and small models let it.
        options = {"whitespace_flexible": False}
        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides=options)  # type: ignore[arg-type]
        except ValueError as error:
            raise SchemaNotSupported(f"the schema cannot be read: {error}") from error
        is_refused, messages = LLMatcher.validate_grammar_with_warnings(grammar, self._tokenizer)
        if is_refused:
            raise SchemaNotSupported(f"the schema cannot be held to: {messages[0]}")
        return grammar

    def constraint(self, grammar: str) -> Constraint:
        """The rule of one row, for a grammar that `compile` made."""
        return _Matched(LLMatcher(self._tokenizer, grammar, log_level=0), self._stop_token_ids)


@lru_cache(maxsize=4)
def token_grammar(description: str, stop_token_ids: tuple[int, ...]) -> TokenGrammar:
    """One for all who ask for the same: a large vocabulary takes a second and some memory."""
    return TokenGrammar(description, stop_token_ids)


class _Matched:
    def __init__(self, matcher: LLMatcher, stop_token_ids: Sequence[int]) -> None:
        self._matcher = matcher
        self._stop = torch.tensor(stop_token_ids, dtype=torch.int64)
        self._consumed = 0

    def mask(self, tokens: Sequence[int]) -> Tensor:
        for token in tokens[self._consumed :]:
            self._matcher.consume_token(token)
        self._consumed = len(tokens)
        if self._matcher.is_error():
            raise SchemaNotSupported(f"the schema grew too complex: {self._matcher.get_error()}")
        if self._matcher.is_stopped():
            return self._stop
        allowed = np.frombuffer(self._matcher.compute_logit_bias(), dtype=np.uint8)
        return torch.from_numpy(np.flatnonzero(allowed))
