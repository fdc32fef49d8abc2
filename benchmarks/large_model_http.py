"""One request of each kind to the whole application, around a model that is already loaded."""

from __future__ import annotations

import asyncio
import base64
import io
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from PIL import Image

from app.main import create_app
from app.runtime import Runtime
from app.settings import Settings
from benchmarks.large_model_answers import ASKED, TAUGHT
from benchmarks.large_model_page import APPLIED, EDITORS, GENERATE, SECONDS, Cells
from editing_core.editable_model import EditableModel
from editing_core.heraldry.sample import draw_sample

PATIENCE_S = 600.0


def serve(model: EditableModel, name: str, folder: Path, *, new_tokens: int) -> dict[str, Cells]:
    """Seconds of two edits and two answers over a socket; the database lies in `folder`.

    Raises `RuntimeError` with the answer when a request is refused.
    """
    settings = Settings.load(data_dir=folder, model=name, edit_wait_s=PATIENCE_S)
    return asyncio.run(_serve(Runtime.open(settings, model=model), new_tokens))


async def _serve(runtime: Runtime, new_tokens: int) -> dict[str, Cells]:
    app = create_app(runtime.settings, runtime=runtime)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    # It listens from here on: a request that comes before the server is up waits.
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    running: asyncio.Task[None] | None = None
    try:
        await runtime.load()
        running = asyncio.create_task(server.serve(sockets=[listening]))
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as client:
            return await _ask(client, new_tokens)
    finally:
        server.should_exit = True
        if running is not None:
            await running
        listening.close()
        await runtime.close()


async def _ask(client: httpx.AsyncClient, new_tokens: int) -> dict[str, Cells]:
    found: dict[str, Cells] = {}

    async def post(line: str, path: str, status: int, body: Mapping[str, object]) -> Any:
        began = time.perf_counter()
        answer = await client.post(path, json=body)
        found[line] = {SECONDS: time.perf_counter() - began}
        if answer.status_code != status:
            raise RuntimeError(f"POST {path}: {answer.status_code} {answer.text}")
        return answer.json()

    for number, editor in enumerate(EDITORS[:2]):
        asked = {"image": _picture(120_000 + number), "prompt": ASKED}
        edit = {**asked, "target": TAUGHT, "editor": editor, "verify": "off"}
        await post(line := f"POST /edits, {editor}", "/edits", 201, edit)
        found[line][APPLIED] = "-"
    for edits, line in GENERATE.items():
        body = {**asked, "max_new_tokens": new_tokens, "edits": edits}
        told = await post(line, "/generate", 200, body)
        found[line][APPLIED] = len(told["applied"])
    return found


def _picture(seed: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(draw_sample(seed).picture.image).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
