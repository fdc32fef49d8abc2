"""The image filter from a hundred to a million keys (R6), and whether it is exact.

    python -m benchmarks.filter_sizes [--sizes 100,10000,1000000] [--queries 10000]

Keys of 512 numbers, made up in two ways: *as an encoder makes them*, with the mean and covariance
that image keys of drawn emblems have in the embedded model, turned into 512 directions at random;
and *in all directions alike*, which is the worst case for bounds. Milliseconds are this thread's
own time, the median of the queries. `--queries` are compared with an oracle that looks at every
key, each query with two keys planted at the threshold plus and minus 1e-6.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import RESULTS, table, write
from editing_core.editable_model import EditableModel
from editing_core.evaluation.machine import facts
from editing_core.heraldry.sample import draw_sample
from editing_core.index.base import VectorIndex, canonical_scores
from editing_core.index.faiss_flat import FaissFlatIndex
from editing_core.index.product import ProductIndex

DIM, TAUS = 512, (0.83, 0.95)
_PICTURES, _TIMED, _TOGETHER = 300, 30, 100
Keys = NDArray[np.float32]
Make = Callable[[int], Keys]


def as_an_encoder(rng: np.random.Generator) -> Make:
    """Keys with the mean and covariance of those of emblems."""
    model = EditableModel.load()
    pictures = (draw_sample(9_000 + i).picture.image for i in range(_PICTURES))
    keys = np.stack([model.image_key(image) for image in pictures])
    mean, size = keys.mean(axis=0), keys.shape[1]
    spread = np.linalg.cholesky(np.cov(keys.T) + 1e-5 * np.eye(size))
    turned = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0][:size]

    def make(count: int) -> Keys:
        made = np.empty((count, DIM), np.float32)
        for start in range(0, count, 20_000):
            part = made[start : start + 20_000]
            drawn = (mean + rng.standard_normal((len(part), size)) @ spread.T) @ turned
            part[:] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        return made

    return make


def all_alike(rng: np.random.Generator) -> Make:
    def make(count: int) -> Keys:
        made = rng.standard_normal((count, DIM), dtype=np.float32)
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        return made

    return make


def filled(kind: type[VectorIndex], keys: Keys) -> VectorIndex:
    index = kind(DIM)
    index.add([f"e{i:07}" for i in range(len(keys))], keys)
    return index


def query_ms(index: VectorIndex, queries: Keys, tau: float) -> float:
    spent = []
    for query in queries:
        began = time.thread_time()
        index.range_search(query, tau)
        spent.append(1e3 * (time.thread_time() - began))
    return statistics.median(spent)


def speed(name: str, make: Make, sizes: list[int]) -> list[dict[str, float | str]]:
    rows: list[dict[str, float | str]] = []
    for size in sizes:
        keys = make(size)
        index, queries = filled(ProductIndex, keys), make(_TIMED)
        for tau in TAUS:
            row: dict[str, float | str] = {"keys": name, "number": size, "tau": tau}
            row["filter, ms"] = query_ms(index, queries, tau)
            rows.append(row)
        del index
        flat = filled(FaissFlatIndex, keys)
        rows[-1]["FAISS flat, ms"] = query_ms(flat, queries, TAUS[-1])
        print(rows[-2:], flush=True)
    return rows


def planted(query: Keys, cosine: float, rng: np.random.Generator) -> Keys:
    other = rng.standard_normal(DIM)
    other -= (other @ query) * query
    other /= np.linalg.norm(other)
    made: Keys = (cosine * query + (1 - cosine**2) ** 0.5 * other).astype(np.float32)
    return made


def missed(make: Make, size: int, queries: int, tau: float, rng: np.random.Generator) -> int:
    """Queries whose answer is not the oracle's."""
    wrong = 0
    for _ in range(0, queries, size // 4):
        count = min(queries, size // 4)
        keys, asked = make(size), make(count)
        for at, query in enumerate(asked):
            keys[2 * at] = planted(query, tau + 1e-6, rng)
            keys[2 * at + 1] = planted(query, tau - 1e-6, rng)
        index = filled(ProductIndex, keys)
        for start in range(0, count, _TOGETHER):
            together = asked[start : start + _TOGETHER]
            scores = together @ keys.T
            for query, row in zip(together, scores, strict=True):
                wrong += {name for name, _ in index.range_search(query, tau)} != _oracle(
                    keys, query, row, tau
                )
    return wrong


def _oracle(keys: Keys, query: Keys, row: Keys, tau: float) -> set[str]:
    """Far from the threshold any product decides, near it the canonical score."""
    near = np.flatnonzero(np.abs(row - tau) < 1e-4)
    reach = set(np.flatnonzero(row >= tau + 1e-4).tolist())
    reach |= {int(i) for i in near[canonical_scores(keys[near], query) >= tau]}
    return {f"e{i:07}" for i in reach}


def main() -> None:
    """Measure and print; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", default="100,1000,10000,100000,1000000")
    parser.add_argument("--queries", type=int, default=10_000)
    options = parser.parse_args()
    rng = np.random.default_rng(11)
    sizes = [int(size) for size in options.sizes.split(",")]
    makes = {"as an encoder makes them": as_an_encoder(rng), "all directions alike": all_alike(rng)}
    wrong = {
        name: missed(make, 10_000, options.queries, TAUS[0], rng) for name, make in makes.items()
    }
    told = [f"Answers that are not the oracle's, of {options.queries} queries: {wrong}."]
    print(told[0], flush=True)
    rows = [row for name, make in makes.items() for row in speed(name, make, sizes)]
    names = ["keys", "number", "tau", "filter, ms", "FAISS flat, ms"]
    cells = [[_cell(row.get(name, "")) for name in names] for row in rows]
    told.append(table(names, cells))
    print(write("filter-sizes", "The image filter", [("One query", "\n\n".join(told))]))
    kept = {"machine": facts(), "queries": options.queries, "wrong": wrong, "rows": rows}
    path = RESULTS / f"{datetime.now(UTC).date().isoformat()}-filter-sizes.json"
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def _cell(value: float | str) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
