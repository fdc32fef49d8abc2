"""What travels between the server and its engine arrives as it was."""

from __future__ import annotations

import gc
import queue
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from app.device.snapshots import Define, Forget, Gather, KeptSnapshots, NumberedSnapshots
from app.device.wire import Frame, Wire, pack, unpack
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.types import EditArtifact, RoutingKey

DIM = 8


@pytest.fixture
def ends() -> Iterator[tuple[Wire, Wire]]:
    pair = socket.socketpair()
    wires = Wire(pair[0]), Wire(pair[1])
    yield wires
    for wire in wires:
        wire.close()
        wire.release()


def no_number(_snapshot: Snapshot) -> int:
    raise AssertionError


def no_snapshot(_number: int) -> Snapshot:
    raise AssertionError


def test_large_and_small_arrays_and_tensors_arrive_as_they_were(ends: tuple[Wire, Wire]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)
    sent: dict[str, Any] = {
        "picture": picture,
        "part": picture[10:20],
        "across": picture[:, 3],
        "half": torch.arange(6, dtype=torch.float16).reshape(2, 3),
        "brain": torch.ones(4, dtype=torch.bfloat16),
        "words": ("ü", 3, None),
    }
    frame = pack(sent, no_number)
    assert len(frame) == 2, "only the whole picture travels beside the pickle"
    sender = threading.Thread(target=ends[0].send, args=(frame,))
    sender.start()  # more than a socket holds
    came = unpack(ends[1].receive(), no_snapshot)
    sender.join()

    assert came["words"] == sent["words"]
    for name in ("picture", "part", "across"):
        np.testing.assert_array_equal(came[name], sent[name])
        assert came[name].flags.writeable
    for name in ("half", "brain"):
        assert came[name].dtype == sent[name].dtype
        assert torch.equal(came[name], sent[name])


def test_the_other_end_is_missed(ends: tuple[Wire, Wire]) -> None:
    ends[0].send(pack(1, no_number))
    ends[0].close()
    assert unpack(ends[1].receive(), no_snapshot) == 1
    with pytest.raises(EOFError):
        ends[1].receive()
    ends[0].close()
    with pytest.raises(BrokenPipeError):
        ends[0].send(pack(2, no_number))


# --- snapshots ----------------------------------------------------------------------------------


def entry(number: int, name: str | None = None) -> MemoryEntry:
    key = np.random.default_rng(number).normal(size=DIM).astype(np.float32)
    key /= np.linalg.norm(key)
    payload = {"up": torch.full((2, 3), float(number), dtype=torch.float16)}
    artifact = EditArtifact(
        "liveedit", 1, "all", payload, RoutingKey(key, key[None], key[None]), "b", "e", "r"
    )
    return MemoryEntry(name or f"e{number}", artifact, f"sha256:{number}", "q")


class Both:
    """Both sides, and what went between them."""

    def __init__(self) -> None:
        self.forgotten: queue.SimpleQueue[Forget] = queue.SimpleQueue()
        self.here = NumberedSnapshots(self.forgotten.put)
        self.there = KeptSnapshots()
        self.sent: list[Gather | Define] = []

    def send(self, snapshot: Snapshot) -> Snapshot:
        """The one that is there now."""
        number = unpack(pack(self.here.number(snapshot), no_number), no_snapshot)
        for definition in self.here.definitions():
            frame: Frame = pack(definition, self.here.number)
            self.there.take(unpack(frame, self.there.__getitem__))
            self.sent.append(definition)
        return self.there[number]

    def added(self) -> list[int]:
        """How many edits travelled, by snapshot; and from now on."""
        sent, self.sent = self.sent, []
        counts = dict.fromkeys((each.number for each in sent), 0)
        for each in sent:
            if isinstance(each, Gather):
                counts[each.number] += len(each.added)
        return list(counts.values())


def same(one: Snapshot, other: Snapshot) -> None:
    assert one.version == other.version
    assert one.entries.keys() == other.entries.keys()
    for edit_id, entry in one.entries.items():
        artifact, copy = entry.artifact, other.entries[edit_id].artifact
        assert torch.equal(artifact.payload["up"], copy.payload["up"])
        key = artifact.key.image
        assert one.image_candidates(key, 0.5) == other.image_candidates(key, 0.5)


def test_an_edit_travels_once_whatever_is_made_of_it() -> None:
    both, empty = Both(), Snapshot.empty(DIM)
    many = empty.evolve(1, activate=[entry(i) for i in range(600)])
    same(many, both.send(many))
    both.here.newest = many
    assert both.added() == [600]

    tried = many.evolve(2, activate=[entry(601)], deactivate=["e3"])
    same(tried, both.send(tried))
    assert both.send(tried) is both.send(tried)
    rekeyed = many.evolve(2, activate=[entry(700, "e5")], deactivate=["e5"])
    same(rekeyed, both.send(rekeyed))
    assert both.added() == [1, 1]

    # An earlier version, put together of what is still in force and what no longer is.
    past = empty.evolve(1, activate=[*list(many.entries.values())[:-2], entry(900)])
    same(past, both.send(past))
    assert both.added() == [1]
    same(empty, both.send(empty))
    assert both.added() == [0]


def test_what_nobody_holds_is_forgotten_there() -> None:
    both = Both()
    head = Snapshot.empty(DIM).evolve(1, activate=[entry(1)])
    both.send(head)
    both.here.newest = head
    for version in range(2, 30):
        both.send(head.evolve(version, activate=[entry(version)]))
    gc.collect()
    while not both.forgotten.empty():
        both.there.take(both.forgotten.get())
    assert len(both.there) == 1

    # One whose base is gone on both sides is made of the newest.
    between = head.evolve(30, activate=[entry(30)])
    last = between.evolve(31, activate=[entry(31)])
    del between
    gc.collect()
    both.added()
    same(last, both.send(last))
    assert both.added() == [2]
