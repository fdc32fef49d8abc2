"""The server as a process, under attack: it stays small, stays up, and goes when it is told to."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from tests.support.server import ROOT, ServerProcess, eventually, picture


def connect(server: ServerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=120)


def test_crowds_and_halves_neither_stop_the_server_nor_keep_it(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Few descriptors, more connections than that, half-sent bodies, and a stop in between."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    arguments = ("--model", tiny_checkpoint, "--data-dir", tmp_path / "data", "--device", "cpu")
    program = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)); {START}"
    assert soft > 600 or hard > 600
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2000)), hard))
    with ServerProcess(*arguments, cwd=tmp_path, program=program) as server, ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(connect(server))
        question = {"prompt": "q", "image": picture(1), "max_new_tokens": 1}
        for _ in range(3):
            assert server.request("GET", "/health/live").status_code == 200
            assert server.request("POST", "/generate", json=question).status_code == 200
        half = stack.enter_context(connect(server))
        half.sendall(b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
        eventually(lambda: server.request("GET", "/health/live").status_code == 200)

        assert server.terminate() == 0
        answer = half.recv(2**16)

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"draining" in answer
    logged = "".join(server.lines)
    assert "Traceback" not in logged
    assert "traceback" not in logged
    assert logged.count("connections are open, and no more may be") == 1


START = "import app.cli; app.cli.main()"


def test_a_stranger_s_packages_on_the_path_are_not_ours(tmp_path: Path) -> None:
    for name in ("app", "migrations", "editing_core"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('a stranger')", "utf-8")
    program = f"import sys; sys.path.append({str(ROOT)!r}); from errata_start import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    run = subprocess.run(
        [sys.executable, "-c", program, "sample", "--seed", "7", "--out", str(tmp_path / "a.png")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("{")
