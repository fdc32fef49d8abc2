"""Trains the question encoder: low-rank changes to a pretrained sentence encoder.

A step takes some topics, some intents of each, and of each intent two wordings and a few
confusables. To a wording, the other wording of its intent is the positive; its confusables and
the wordings of the other intents are negatives. Intents of one topic in one batch are what makes it
work: they are each other's hardest strangers. Two losses are added:

    contrast    softplus( logsumexp of the negatives - the positive ), cosines times `_SCALE`
                (as InfoNCE; van den Oord et al., 2018)
    threshold   logistic loss of each pair under one learned line, so that one threshold suits all
                (as SigLIP's; Zhai et al., ICCV 2023)

Every other step one topic is of `everyday.yaml`: one sentence with another attribute in its place
asks something else, whatever it is about. Wordings of two topics that may ask the same ("price?",
"how much") are no strangers: those of a few words both, and those that share most of their words.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editing_core.objectives.base import LossTerms
from editing_core.questions.corpus import Intent
from editing_core.questions.encoder import MOST_TOKENS
from editing_core.questions.reader import pooled
from editing_core.questions.spelling import Spelling
from editing_core.training.everyday import everyday_pairs
from editing_core.training.slips import roughened

TARGETS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
"""Matrices of each block that are changed."""

HOME = "emblems of the embedded world"
"""What the model that ships is asked about: seen more often than other topics."""

_HOME_EVERY, _FRAMED_EVERY = 3, 2
_EVERYDAY = -1
_SCALE = 20.0
_THRESHOLD_SHARE = 0.5
_FEW_WORDS, _MOST_SHARED = 4, 0.5
# Sentences of like length are run together: shares of the batch, the shortest first.
_CUTS = (0.0, 0.4, 0.7, 0.9, 1.0)


@dataclass(frozen=True, slots=True)
class QuestionRecipe:
    """What a step draws, and how large the changes may be. Part of the encoder's fingerprint."""

    rank: int = 32
    scale: float = 2.0
    topics: int = 4
    intents: int = 6
    confusables: int = 3
    dropout: float = 0.1


class LowRank(nn.Module):
    """A linear layer, frozen, with `scale * up(down(x))` added."""

    def __init__(self, inner: nn.Linear, *, rank: int, scale: float) -> None:
        super().__init__()
        self.inner = inner.requires_grad_(False)
        # Plain parameters, not layers: orthogonal steps, which suit whole matrices, spoil these.
        self.down = nn.Parameter(torch.randn(rank, inner.in_features) * inner.in_features**-0.5)
        self.up = nn.Parameter(torch.zeros(inner.out_features, rank))
        self.scale = scale

    def forward(self, rows: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.inner(rows) + self.scale * F.linear(F.linear(rows, self.down), self.up)
        return out


class _Trained(nn.Module):
    """What is learned and checkpointed: the low-rank pairs, and the line of the threshold."""

    def __init__(self, pairs: Mapping[str, LowRank]) -> None:
        super().__init__()
        # Names of modules may not hold dots.
        self.down = nn.ParameterDict({n.replace(".", "/"): p.down for n, p in pairs.items()})
        self.up = nn.ParameterDict({n.replace(".", "/"): p.up for n, p in pairs.items()})
        self.log_slope = nn.Parameter(torch.tensor(2.5))
        self.bias = nn.Parameter(torch.tensor(-6.0))


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Two wordings and some confusables of one intent."""

    topic: int
    name: str
    wordings: Sequence[str]
    confusables: Sequence[str]


@dataclass(frozen=True)
class _Batch:
    texts: list[str]
    intent: Tensor
    topic: Tensor
    is_wording: Tensor


class QuestionTask:
    """The task of `trainer.train`. `topics` are those of the training split."""

    name = "questions"

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        topics: Mapping[str, Sequence[Intent]],
        recipe: QuestionRecipe,
        *,
        seed: int,
    ) -> None:
        self._network, self._tokenizer = network, tokenizer
        self._topics = [list(intents) for intents in topics.values()]
        names = list(topics)
        self._home = names.index(HOME) if HOME in names else None
        self._recipe, self._seed = recipe, seed
        self._spelling = Spelling(tokenizer.get_vocab())
        network.requires_grad_(False)
        torch.manual_seed(seed)
        pairs: dict[str, LowRank] = {}
        for layer in range(network.config.num_hidden_layers):
            for target in TARGETS:
                name = f"encoder.layer.{layer}.{target}"
                parent, _, leaf = name.rpartition(".")
                pair = LowRank(network.get_submodule(name), rank=recipe.rank, scale=recipe.scale)
                setattr(network.get_submodule(parent), leaf, pair)
                pairs[name] = pair
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = recipe.dropout
        self.module: nn.Module = _Trained(pairs)
        network.train()

    def delta(self) -> dict[str, Tensor]:
        """What has been learned, as it is stored: float16, by the names of the matrices."""
        made: dict[str, Tensor] = {}
        for side in ("down", "up"):
            for name, weight in getattr(self.module, side).items():
                made[f"{name.replace('/', '.')}.{side}"] = weight.detach().half().contiguous()
        return made

    def keys(self, texts: Sequence[str]) -> Tensor:
        """Keys under the weights as they are now, `[texts, dim]`; for measuring."""
        self._network.eval()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            found = torch.cat(
                [
                    self._run([self._spelling(t) for t in texts[i : i + 256]])
                    for i in range(0, len(texts), 256)
                ]
            )
        self._network.train()
        return found

    def loss(self, number: int, /) -> LossTerms:
        """Of batch `number`; what it draws is a function of seed and number."""
        batch = self._draw(number)
        torch.manual_seed(hash((self._seed, number)) & 0x7FFFFFFF)
        with torch.autocast("cpu", torch.bfloat16):
            keys = self._run(batch.texts)
        count = int(batch.is_wording.sum())
        cosines = keys[:count] @ keys.T
        same = batch.intent[:count, None] == batch.intent[None]
        positive = same & batch.is_wording[None]
        positive.fill_diagonal_(False)
        negative = (~same & batch.is_wording[None]) | (same & ~batch.is_wording[None])
        apart = batch.topic[:count, None] != batch.topic[None, :count]
        negative[:, :count] &= ~(apart & _alike(batch.texts[:count]))
        scaled = _SCALE * cosines
        strangers = scaled.masked_fill(~negative, -1e4).logsumexp(1)
        rows, columns = positive.nonzero(as_tuple=True)
        contrast = F.softplus(strangers[rows] - scaled[rows, columns]).mean()
        module: Any = self.module
        line = module.log_slope.exp() * cosines + module.bias
        missed = F.softplus(-line[positive]).mean()
        fired = (F.softplus(line) * negative).sum() / negative.sum()
        threshold = missed + 8.0 * fired
        return LossTerms(
            terms={"contrast": contrast, "threshold": _THRESHOLD_SHARE * threshold}, figures={}
        )

    def _draw(self, number: int) -> _Batch:
        rng = np.random.default_rng([self._seed, number])
        drawn = self._drawn(number, rng)
        texts: list[str] = []
        intent: list[int] = []
        topic: list[int] = []
        # Lines of one name are one intent.
        numbers: dict[tuple[int, str], int] = {}
        for each in drawn:
            number_of = numbers.setdefault((each.topic, each.name), len(numbers))
            texts += each.wordings
            intent += [number_of] * len(each.wordings)
            topic += [each.topic] * len(each.wordings)
        count = len(texts)
        for each in drawn:
            texts += each.confusables
            intent += [numbers[each.topic, each.name]] * len(each.confusables)
            topic += [each.topic] * len(each.confusables)
        return _Batch(
            [self._spelling(roughened(text, rng)) for text in texts],
            torch.tensor(intent),
            torch.tensor(topic),
            torch.arange(len(texts)) < count,
        )

    def _drawn(self, number: int, rng: np.random.Generator) -> list[_Drawn]:
        """Intents of one batch; every other time its first topic is an everyday one."""
        recipe = self._recipe
        topics = rng.choice(len(self._topics), size=recipe.topics, replace=False).tolist()
        if self._home is not None and number % _HOME_EVERY == 0 and self._home not in topics:
            topics[0] = self._home
        drawn: list[_Drawn] = []
        if number % _FRAMED_EVERY == 1:
            topics = topics[1:]
            pairs = everyday_pairs(rng, recipe.intents)
            drawn = [_Drawn(_EVERYDAY, name, wordings, ()) for name, wordings in pairs]
        for t in topics:
            intents = self._topics[t]
            size = min(recipe.intents, len(intents))
            for i in rng.choice(len(intents), size=size, replace=False).tolist():
                each = intents[i]
                drawn.append(
                    _Drawn(
                        t,
                        each.name,
                        _some(each.wordings, 2, rng),
                        _some(each.confusables, recipe.confusables, rng),
                    )
                )
        return drawn

    def _run(self, texts: Sequence[str]) -> Tensor:
        """Keys of texts whose spelling is mended, those of like length run together."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        edges = [round(cut * len(order)) for cut in _CUTS]
        parts = []
        for start, stop in itertools.pairwise(edges):
            if start < stop:
                batch = self._tokenizer(
                    [texts[i] for i in order[start:stop]],
                    padding=True,
                    truncation=True,
                    max_length=MOST_TOKENS,
                    return_tensors="pt",
                )
                parts.append(pooled(self._network, batch))
        keys = torch.cat(parts)
        return torch.empty_like(keys).index_copy(0, torch.tensor(order), keys)


def _alike(texts: Sequence[str]) -> Tensor:
    """Pairs that may ask the same whatever they are about, bool `[texts, texts]`."""
    words = [set(text.lower().split()) for text in texts]
    found = torch.zeros(len(texts), len(texts), dtype=torch.bool)
    for i, one in enumerate(words):
        for j, other in enumerate(words[:i]):
            few = len(one) <= _FEW_WORDS and len(other) <= _FEW_WORDS
            shared = len(one & other) > _MOST_SHARED * len(one | other)
            found[i, j] = found[j, i] = few or shared
    return found


def _some(texts: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    return [texts[i] for i in rng.choice(len(texts), size=count, replace=False).tolist()]
