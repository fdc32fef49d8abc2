"""Does every operation do what its schema says? schemathesis asks, with all of its checks.

    python -m benchmarks.fuzz_api [--schemathesis PATH] [--examples 200] [--seeds 1,2,3]

Starts a server of its own, on an empty data directory with one edit, for each seed.
`make fuzz` installs schemathesis apart from everything else and runs this. What is excepted, and
why, is in `schemathesis.toml`. Exits with 1 when a check failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.server import ServerProcess, picture

CONFIG = Path(__file__).with_name("schemathesis.toml")


def run(program: str, model: str, *, examples: int, seed: int) -> int:
    """One server, one seed; schemathesis' exit status."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ("--model", model, "--data-dir", folder, "--device", "cpu")
        with ServerProcess(*arguments, cwd=Path(folder)) as server:
            edit = {"image": picture(1), "prompt": "q", "target": "blue", "verify": "off"}
            made = server.request("POST", "/edits", json=edit)
            command = [program, "--config-file", str(CONFIG), "run", f"{server.url}/openapi.json"]
            command += ["--checks", "all", "--max-examples", str(examples), "--seed", str(seed)]
            command += ["--generation-database", "none"]
            environment = {**os.environ, "ERRATA_EDIT_ID": made.json()["id"]}
            status = subprocess.run(command, env=environment, cwd=folder, check=False).returncode
            assert server.terminate() == 0
    return status or int("Traceback" in "".join(server.lines))


def main() -> int:
    """Run every seed; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schemathesis", default="schemathesis", help="the program")
    parser.add_argument("--model", default="heraldry")
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--seeds", default="1,2,3")
    options = parser.parse_args()
    return max(
        run(options.schemathesis, options.model, examples=options.examples, seed=seed)
        for seed in map(int, options.seeds.split(","))
    )


if __name__ == "__main__":
    sys.exit(main())
