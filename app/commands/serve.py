"""`errata serve`: the server as a process, from the lock to the last drained request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from app.errors import ServiceError, StartupError
from app.main import create_app
from app.memory import give_back_freed_memory
from app.observability import configure_logging
from app.protocol import HttpConfig, HttpServer
from app.runtime import Runtime
from app.settings import Settings
from editing_core.errors import EditingError

app = typer.Typer(add_completion=False)
logger = logging.getLogger(__name__)

_THREAD_TURN_S = 0.0005
"""How long a thread that computes keeps the event loop waiting, a tenth of Python's default: the
loop asks for its turn after every read and write."""


@app.command()
def serve(
    model: Annotated[str | None, typer.Option(help="heraldry, a hub id, or a folder.")] = None,
    host: Annotated[str | None, typer.Option(help="Loopback address. [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="0 takes a free one. [8000]")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="All that is written. [./data]")] = None,
    database_url: Annotated[str | None, typer.Option(help="Default: in the data dir.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")] = None,
    quantization: Annotated[
        str | None, typer.Option(help="none, int8 or int4, with bitsandbytes on CUDA. [none]")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Of a hub id: branch, tag, commit.")] = None,
    clip: Annotated[
        Path | None, typer.Option(help="CLIPModel's folder for image keys, if the model has none.")
    ] = None,
    question_encoder: Annotated[
        str | None, typer.Option(help="What compares questions: shipped, none, or a folder.")
    ] = None,
    eyes: Annotated[
        str | None, typer.Option(help="What compares pictures: shipped, none, or a folder.")
    ] = None,
    trust_remote_code: Annotated[
        bool | None,
        typer.Option(
            "--trust-remote-code",
            help="Run code that the processor or tokenizer brings; a model's own is never run.",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of the model.")] = None,
    engine: Annotated[
        str | None, typer.Option(help="Where the model runs: thread or process. [thread]")
    ] = None,
    engine_restarts: Annotated[
        int | None, typer.Option(help="In a row, of an engine's process that ends. [5]")
    ] = None,
    editor: Annotated[str | None, typer.Option(help="Default editor. [what fits]")] = None,
    migrate: Annotated[
        bool | None, typer.Option("--migrate/--no-migrate", help="Update the schema at start.")
    ] = None,
    allowed_hosts: Annotated[
        list[str] | None, typer.Option("--allowed-host", help="Further host name of this server.")
    ] = None,
    refine_steps: Annotated[
        int | None, typer.Option(help="Gradient steps for an edit that fails its check. [24]")
    ] = None,
    refine_objective: Annotated[
        str | None, typer.Option(help="answers, liveedit, odedit or same_data. [answers]")
    ] = None,
    edit_wait_s: Annotated[float | None, typer.Option(help="Seconds before 202. [10]")] = None,
    batch_limit: Annotated[int | None, typer.Option(help="Edits in one batch. [1000]")] = None,
    queue_limit: Annotated[int | None, typer.Option(help="Requests at once. [64]")] = None,
    queue_tokens: Annotated[int | None, typer.Option(help="Their tokens. [131072]")] = None,
    batch_rows: Annotated[int | None, typer.Option(help="Questions on the device. [32]")] = None,
    batch_tokens: Annotated[int | None, typer.Option(help="Their tokens. [16384]")] = None,
    prefix_cache_mib: Annotated[
        int | None, typer.Option(help="MiB kept of what prompts begin with. [256]")
    ] = None,
    decode_workers: Annotated[int | None, typer.Option(help="Pictures at once. [2]")] = None,
    body_timeout_s: Annotated[float | None, typer.Option(help="Seconds for a body. [30]")] = None,
    body_memory_mib: Annotated[int | None, typer.Option(help="MiB of bodies held. [128]")] = None,
    edit_cache_mib: Annotated[int | None, typer.Option(help="MiB of edits kept. [256]")] = None,
    answer_memory_mib: Annotated[
        int | None, typer.Option(help="MiB of answers kept for feedback. [64]")
    ] = None,
    webhook_url: Annotated[
        str | None, typer.Option(help="Told of events and reports; see the operations page.")
    ] = None,
    webhook_allowed_hosts: Annotated[
        list[str] | None,
        typer.Option("--webhook-allowed-host", help="Host that may be told over plain http."),
    ] = None,
    connection_limit: Annotated[int | None, typer.Option(help="Connections open. [1000]")] = None,
    idle_timeout_s: Annotated[float | None, typer.Option(help="Seconds of idling. [75]")] = None,
    decode_timeout_s: Annotated[
        float | None, typer.Option(help="Computing seconds for one picture. [5]")
    ] = None,
    drain_timeout_s: Annotated[float | None, typer.Option(help="Seconds for SIGTERM. [25]")] = None,
    store_timeout_s: Annotated[float | None, typer.Option(help="Seconds for a lock. [5]")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning, error.")] = None,
) -> None:
    """Serve the model and its edits over HTTP. Every option is also ERRATA_... and errata.toml.

    Example: errata serve --model Qwen/Qwen2.5-VL-7B-Instruct --device cuda --port 9000
    """
    given: dict[str, Any] = dict(locals())
    for name in ("allowed_hosts", "webhook_allowed_hosts"):
        given[name] = tuple(given[name]) if given[name] else None
    try:
        settings = Settings.load(**given)
        configure_logging(settings.log_level)
        give_back_freed_memory()
        sys.setswitchinterval(_THREAD_TURN_S)
        # What draws keeps a list of fonts, which belongs where everything else is written.
        os.environ.setdefault("MPLCONFIGDIR", str(settings.data_dir / "matplotlib"))
        runtime = Runtime.open(settings)
    except StartupError as error:
        typer.echo(f"errata: {error}", err=True)
        raise typer.Exit(1) from error
    raise typer.Exit(asyncio.run(_serve(settings, runtime)))


async def _serve(settings: Settings, runtime: Runtime) -> int:
    """Serve until told to stop; the process's exit status."""
    try:
        listener = _listen(settings)
    except OSError as error:
        typer.echo(f"errata: cannot listen on {settings.host}:{settings.port}: {error}", err=True)
        await runtime.close()
        return 1
    server = _Server(settings, runtime)
    loading = asyncio.ensure_future(_load(settings, runtime, server, listener.getsockname()[1]))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop_soon)
    with listener:
        await server.serve(sockets=[listener])
    await asyncio.wait({loading})
    await runtime.close()
    return 1 if runtime.failure is not None else 0


def _listen(settings: Settings) -> socket.socket:
    """The socket, before anything slow: a port that is taken is known at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host, settings.port), family=family, backlog=2048)


async def _load(settings: Settings, runtime: Runtime, server: _Server, port: int) -> None:
    """Load, then announce it; or say what is wrong and stop the server."""
    try:
        await runtime.load()
    except (StartupError, ServiceError, EditingError, OSError, LookupError, ValueError) as error:
        hint = getattr(error, "hint", "")
        typer.echo(f"errata: cannot start: {error}{' ' if hint else ''}{hint}", err=True)
        server.should_exit = True
        return
    except Exception:
        logger.exception("cannot start")
        server.should_exit = True
        return
    await server.listening.wait()
    if runtime.state != "ready":
        return
    history = runtime.service.history
    stale = history.count_stale()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    typer.echo(
        f"errata: ready on http://{host}:{port} (model {settings.model_name}, "
        f"version {history.head}, {len(history.snapshot.entries)} active edits"
        + (f", {stale} stale: see `errata reencode`)" if stale else ")"),
        err=True,
    )


class _Server(HttpServer):
    """uvicorn, drained by us: while it drains it still answers, with 503 `draining`."""

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        super().__init__(HttpConfig(create_app(settings, runtime=runtime), settings))
        self.listening = asyncio.Event()
        self._runtime = runtime
        self._draining: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ours are installed on the loop; uvicorn's would end the process by the signal."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    def stop_soon(self) -> None:
        """Drain, then exit. Told twice: exit at once."""
        if self._draining is not None:
            self.force_exit = self.should_exit = True
            return
        self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        await self._runtime.drain()
        self.should_exit = True
