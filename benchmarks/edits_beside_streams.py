"""What edits cost those who read meanwhile: streams and short questions with and without edits.

    python -m benchmarks.edits_beside_streams [--url ADDRESS] [--rounds 5] [--quick]

Starts a server of its own with 100 edits of one emblem, or uses the one at ADDRESS. In each round
two arms take turns: readers alone, and readers beside a client that makes strict edits of further
views of that emblem, one after another, and takes each back. Readers are two long streams and a
client that asks one short question after another about another picture.

A gap is the time between two pieces of a stream's text at the client. A ratio is that of the arms'
figures within a round, and its median over rounds is told beside its extremes.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import httpx
from PIL import Image
from transformers import AutoTokenizer

from benchmarks.edit_latency import server
from benchmarks.report import RESULTS, table, write
from editing_core.backbones.loading import find_checkpoint
from editing_core.evaluation.machine import facts
from editing_core.heraldry.sample import draw_sample

SEED = 95_001
STREAMS = 2
TOKENS = 250


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm of one round, times in milliseconds."""

    gap_mean: float
    gap_p50: float
    gap_p95: float
    gap_p99: float
    question_p50: float
    question_p95: float
    gaps: int
    questions: int
    edits: int


FIGURES = ("gap_mean", "gap_p50", "gap_p95", "gap_p99", "question_p50", "question_p95")


def png(seed: int, view: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(draw_sample(seed, view=view).picture.image).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def correction(number: int, *, verify: str) -> dict[str, str]:
    """What can be asked about the emblem, by turns, each about another view of it."""
    questions = draw_sample(SEED).questions
    question = questions[number % len(questions)]
    return {
        "image": png(SEED, number),
        "prompt": question.wordings[0],
        "target": question.alternatives[0],
        "verify": verify,
    }


def stream(client: httpx.Client, stop: Sequence[int]) -> list[float]:
    """The gaps of one stream of `TOKENS` tokens; the end of an answer is forbidden."""
    body = {
        "model": client.get("/v1/models").json()["data"][0]["id"],
        "messages": [{"role": "user", "content": "Describe the emblem."}],
        "max_tokens": TOKENS,
        "temperature": 0,
        "stream": True,
        "logit_bias": {str(token): -100 for token in stop},
    }
    gaps, last = [], None
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            now = time.perf_counter()
            if last is not None:
                gaps.append((now - last) * 1e3)
            last = now
    return gaps


def question(client: httpx.Client, image: str) -> float:
    body = {"image": image, "prompt": "What colour is the field?"}
    began = time.perf_counter()
    client.post("/generate", json=body).raise_for_status()
    return (time.perf_counter() - began) * 1e3


class Editing:
    """A client that makes strict edits until it is told to stop, and takes each back."""

    def __init__(self, client: httpx.Client, numbers: Iterator[int]) -> None:
        self._client = client
        self._numbers = numbers
        self._stops = threading.Event()
        self.made = 0

    def run(self) -> None:
        while not self._stops.is_set():
            body = correction(next(self._numbers), verify="strict")
            response = self._client.post("/edits", json=body)
            if response.is_success:
                self._client.post(f"/admin/edits/{response.json()['id']}/rollback")
                self.made += 1

    @contextmanager
    def under_way(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            self._stops.set()
            thread.join()


def read(client: httpx.Client, stop: Sequence[int], image: str) -> tuple[list[float], list[float]]:
    """Gaps of the streams, and times of the questions that are asked while they run."""
    gaps: list[list[float]] = [[] for _ in range(STREAMS)]

    def run(place: int) -> None:
        gaps[place] = stream(client, stop)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(STREAMS)]
    for thread in threads:
        thread.start()
    times = []
    while any(thread.is_alive() for thread in threads):
        times.append(question(client, image))
        time.sleep(0.05)
    return [gap for each in gaps for gap in each], times


def arm(gaps: Sequence[float], times: Sequence[float], edits: int) -> Arm:
    gap = statistics.quantiles(gaps, n=100)
    late = statistics.quantiles(times, n=20) if len(times) > 1 else [times[0]] * 19
    return Arm(
        gap_mean=statistics.fmean(gaps),
        gap_p50=gap[49],
        gap_p95=gap[94],
        gap_p99=gap[98],
        question_p50=statistics.median(times),
        question_p95=late[18],
        gaps=len(gaps),
        questions=len(times),
        edits=edits,
    )


def measure(client: httpx.Client, rounds: int, numbers: Iterator[int]) -> list[tuple[Arm, Arm]]:
    """Without and with edits, round by round; a first round warms up and is dropped."""
    stop, image = _stop_tokens(), png(SEED + 1, 0)
    found = []
    for number in range(rounds + 1):
        alone = arm(*read(client, stop, image), edits=0)
        editing = Editing(client, numbers)
        with editing.under_way():
            gaps, times = read(client, stop, image)
        beside = arm(gaps, times, editing.made)
        if number:
            found.append((alone, beside))
    return found


def _stop_tokens() -> list[int]:
    """Of the embedded model."""
    tokenizer = AutoTokenizer.from_pretrained(find_checkpoint(None).model)
    return [int(tokenizer.eos_token_id)]


def report(found: Sequence[tuple[Arm, Arm]]) -> str:
    rows = []
    for name in FIGURES:
        pairs = [(getattr(alone, name), getattr(beside, name)) for alone, beside in found]
        ratios = [beside / alone for alone, beside in pairs]
        without, within = (statistics.median(side) for side in zip(*pairs, strict=True))
        row = [name.replace("_", ", "), f"{without:.1f}", f"{within:.1f}"]
        rows.append([*row, *(f"{f(ratios):.2f}" for f in (statistics.median, min, max))])
    header = ["", "without edits, ms", "with edits, ms", "ratio", "least", "most"]
    told = [
        f"{sum(getattr(alone, name) for alone, _ in found):,} and "
        f"{sum(getattr(beside, name) for _, beside in found):,} {name}"
        for name in ("gaps", "questions", "edits")
    ]
    counts = f"Without and with edits, {len(found)} rounds: {', '.join(told)}."
    return f"{table(header, rows)}\n\n{counts}"


def main() -> None:
    """Measure and print; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", help="a server that runs, with edits or without")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--edits", type=int, default=100, help="edits that it has before")
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    options = parser.parse_args()
    rounds, edits = (1, 4) if options.quick else (options.rounds, options.edits)
    numbers = iter(range(edits, 1_000_000))
    if options.url:
        found = measure(httpx.Client(base_url=options.url, timeout=600), rounds, numbers)
    else:
        with server(None) as client:
            client.timeout = httpx.Timeout(600)
            for number in range(edits):
                client.post("/edits", json=correction(number, verify="off")).raise_for_status()
            found = measure(client, rounds, numbers)
    told = report(found)
    print(told)
    if not options.quick:
        write("edits-beside-streams", "Streams while edits are made", [("Side by side", told)])
        kept = {"machine": facts(), "rounds": [[asdict(a), asdict(b)] for a, b in found]}
        path = RESULTS / f"{datetime.now(UTC).date().isoformat()}-edits-beside-streams.json"
        path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
