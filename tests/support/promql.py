"""As much of PromQL as the dashboard uses, over two recorded scrapes.

query     = fraction | value
fraction  = value / value
value     = histogram_quantile(q, value) | sum by (labels) (value) | sum(value)
          | rate(series[$__rate_interval]) | series
series    = name, or name{label="text", label=~"pattern"}
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]

_SUM = re.compile(r"sum(?: by \(([\w, ]+)\) )?\((.*)\)")
_QUANTILE = re.compile(r"histogram_quantile\(([\d.]+), (.*)\)")
_RATE = re.compile(r"(rate|increase)\((.*)\[\$__rate_interval\]\)")
_SERIES = re.compile(r"(\w+)(?:\{(.*)\})?")


@dataclass(frozen=True, slots=True)
class Recording:
    """Two scrapes as Prometheus reads them, `seconds` apart."""

    first: str
    last: str
    seconds: float

    def answer(self, query: str) -> Vector:
        """What the query gives at the last scrape. Raises `ValueError` where it is none of ours."""
        above, is_fraction, below = query.partition(" / ")
        if not is_fraction:
            return self._value(query)
        divisor = self._value(below)
        return {k: v / divisor[k] for k, v in self._value(above).items() if divisor.get(k)}

    def _value(self, query: str) -> Vector:
        if match := _QUANTILE.fullmatch(query):
            return _quantile(float(match[1]), self._value(match[2]))
        if match := _SUM.fullmatch(query):
            by = {name.strip() for name in (match[1] or "").split(",")}
            return _sum(by, self._value(match[2]))
        if match := _RATE.fullmatch(query):
            first, last = self._series(match[2], self.first), self._series(match[2], self.last)
            over = self.seconds if match[1] == "rate" else 1.0
            return {k: (v - first.get(k, 0.0)) / over for k, v in last.items()}
        return self._series(query, self.last)

    def _series(self, query: str, scrape: str) -> Vector:
        match = _SERIES.fullmatch(query)
        if match is None:
            raise ValueError(f"{query!r} is no query that is understood here")
        wanted = re.findall(r'(\w+)(=~?)"([^"]*)"', match[2] or "")
        return {
            frozenset(sample.labels.items()): sample.value
            for family in text_string_to_metric_families(scrape)
            for sample in family.samples
            if sample.name == match[1] and all(_fits(sample.labels, *each) for each in wanted)
        }


def _fits(labels: Mapping[str, str], name: str, operator: str, text: str) -> bool:
    held = labels.get(name, "")
    return held == text if operator == "=" else re.fullmatch(text, held) is not None


def _sum(by: set[str], vector: Vector) -> Vector:
    sums: Vector = defaultdict(float)
    for labels, value in vector.items():
        sums[frozenset(pair for pair in labels if pair[0] in by)] += value
    return dict(sums)


def _quantile(quantile: float, vector: Vector) -> Vector:
    """By the buckets of each histogram, linear inside of one; NaN where nothing was counted."""
    buckets: dict[Labels, list[tuple[float, float]]] = defaultdict(list)
    for labels, value in vector.items():
        rest = frozenset(pair for pair in labels if pair[0] != "le")
        buckets[rest].append((float(dict(labels)["le"]), value))
    return {labels: _of_buckets(quantile, sorted(each)) for labels, each in buckets.items()}


def _of_buckets(quantile: float, buckets: list[tuple[float, float]]) -> float:
    total = buckets[-1][1]
    if total == 0:
        return math.nan
    wanted, below, lower = quantile * total, 0.0, 0.0
    for upper, count in buckets:
        if count >= wanted:
            if math.isinf(upper):
                return lower
            inside = (wanted - below) / (count - below) if count > below else 1.0
            return lower + (upper - lower) * inside
        below, lower = count, upper
    return lower
