"""A PostgreSQL server for tests: a cluster of its own in a folder, on a socket of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import sqlalchemy as sa

_PLACES = "/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql*/bin"


def programs() -> Path | None:
    """Where `initdb` lies; None where PostgreSQL is not installed."""
    at_hand = shutil.which("initdb")
    if at_hand is not None:
        return Path(at_hand).parent
    places = [found for place in _PLACES for found in Path("/").glob(place.lstrip("/"))]
    return max((place for place in places if (place / "initdb").exists()), default=None)


@dataclass(frozen=True)
class Cluster:
    """One running server. `folder` holds its data and its socket."""

    folder: Path
    bin: Path

    def create(self) -> str:
        """The URL of a new database."""
        name = f"errata_{uuid4().hex[:12]}"
        with self._admin().connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return self.url(name)

    def copy(self, url: str) -> str:
        """The URL of a copy, as a backup is one. Nobody may be connected to the first."""
        name = f"errata_{uuid4().hex[:12]}"
        with self._admin().connect() as connection:
            connection.exec_driver_sql(
                f"CREATE DATABASE {name} TEMPLATE {sa.make_url(url).database}"
            )
        return self.url(name)

    def replace(self, url: str, by: str) -> None:
        """Another database under the name of this one."""
        name, other = sa.make_url(url).database, sa.make_url(by).database
        with self._admin().connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name}")
            connection.exec_driver_sql(f"ALTER DATABASE {other} RENAME TO {name}")

    def alter(self, url: str, *statements: str) -> None:
        """What somebody with a shell can do: triggers do not fire for such a session."""
        engine = sa.create_engine(_driver(url), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql("SET session_replication_role = replica")
            for statement in statements:
                connection.exec_driver_sql(statement)
        engine.dispose()

    def disconnect(self) -> None:
        """Every connection breaks, as when the server is started again."""
        with self._admin().connect() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND application_name LIKE 'errata%%'"
            )

    def url(self, name: str) -> str:
        return f"postgresql://postgres@/{name}?host={self.folder}"

    def _admin(self) -> sa.Engine:
        return sa.create_engine(
            _driver(self.url("postgres")), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
        )


@contextmanager
def cluster(bin_folder: Path) -> Iterator[Cluster]:
    """One that runs while the block does. It refuses to run as root, so it runs as `postgres`."""
    # A socket's path may be 107 bytes long at most, so not a test's own folder.
    folder = Path(tempfile.mkdtemp(prefix="errata-pg-"))
    data = folder / "data"
    account = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    try:
        if os.getuid() == 0:
            shutil.chown(folder, account)
        folder.chmod(0o755)

        def run(name: str, *arguments: str) -> None:
            subprocess.run(
                [bin_folder / name, *arguments],
                check=True,
                user=account if os.getuid() == 0 else None,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

        trust = ("--auth=trust", "--encoding=UTF8", "--locale=C", "--username=postgres")
        run("initdb", f"--pgdata={data}", "--no-sync", *trust)
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}'"
        run("pg_ctl", "-D", str(data), "-l", str(folder / "log"), "-o", options, "-w", "start")
        try:
            yield Cluster(folder, bin_folder)
        finally:
            run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _driver(url: str) -> sa.URL:
    return sa.make_url(url).set(drivername="postgresql+psycopg")
