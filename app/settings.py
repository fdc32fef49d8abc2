"""Every variable of the server, once: documented, validated, frozen.

Precedence: command line flag, then environment (`ERRATA_PORT`), then `errata.toml` in the current
folder, then the default. A name that does not exist is an error wherever it is written, except
those of the client (`ERRATA_URL`, `ERRATA_API_KEY`) and those that Kubernetes sets by itself for a
service called errata. An empty variable is as good as none.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import sqlalchemy as sa
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from app.errors import StartupError
from app.signing import key_of

ENV_PREFIX = "ERRATA_"
SETTINGS_FILE = Path("errata.toml")
CLIENT_VARIABLES = frozenset({"ERRATA_URL", "ERRATA_API_KEY"})
MIN_ADMIN_KEY = 24
MIN_WEBHOOK_SECRET = 24
ALWAYS_ALLOWED_HOSTS = ("localhost", "127.0.0.1", "::1", "testserver")

_OF_KUBERNETES = re.compile(
    r"ERRATA_(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_KUBERNETES_PORT = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)
_HOST_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")


class Settings(BaseSettings):
    """How one server runs. Build it with `Settings.load`, which words mistakes for people."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        validate_default=True,
    )

    model: str = Field("heraldry", min_length=1, description="Embedded name, hub id or folder.")
    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address to listen on; beyond loopback, with keys only.",
    )
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    allowed_hosts: tuple[str, ...] = Field(
        (), description="Further names, as JSON, under which clients may address the server."
    )
    data_dir: Path = Field(Path("data"), description="Everything the server writes lies here.")
    admin_key: SecretStr | None = Field(
        None,
        description="A first API key with the scope admin; best left to a secret.",
    )
    database_url: str | None = Field(
        None, description="SQLAlchemy URL; default: errata.db in the data directory."
    )
    migrate: bool = Field(True, description="Bring the database's schema up to date at start.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where it runs.")
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="Precision.")
    quantization: Literal["none", "int8", "int4"] = Field(
        "none", description="Pack the language model's weights; needs CUDA and bitsandbytes."
    )
    revision: str | None = Field(
        None, min_length=1, description="Branch, tag or commit of a hub id; default: its main one."
    )
    clip: Path | None = Field(
        None, description="Folder of a CLIPModel that makes image keys, where the model has none."
    )
    question_encoder: str = Field(
        "shipped", min_length=1, description="shipped, none, or a folder that training made."
    )
    eyes: str = Field(
        "shipped", min_length=1, description="shipped, none, or a folder that training made."
    )
    trust_remote_code: bool = Field(
        False, description="Run code that a model's processor or tokenizer brings along."
    )
    threads: int | None = Field(
        None, ge=1, description="CPU threads of the model; default: torch's."
    )
    engine: Literal["thread", "process"] = Field(
        "thread", description="Where the model runs: beside the server, or in its own process."
    )
    engine_restarts: int = Field(
        5, ge=0, description="How often in a row an engine's process that ends is started again."
    )
    editor: str | None = Field(
        None, min_length=1, description="Editor used where none is named; default: what fits."
    )
    refine_steps: int = Field(
        24, ge=0, le=1000, description="Gradient steps for an edit that fails its check; 0: none."
    )
    refine_objective: Literal["answers", "liveedit", "odedit", "same_data"] = Field(
        "answers", description="What those steps minimise."
    )
    edit_wait_s: float = Field(
        10.0, ge=0, description="How long an edit is waited for before it is answered 202."
    )
    batch_limit: int = Field(1000, ge=1, description="Edits in one request to /edits/batch.")
    queue_limit: int = Field(64, ge=1, description="Requests waiting or running before 429.")
    queue_tokens: int = Field(
        131_072, ge=1, description="Tokens that those requests may come to before 429."
    )
    batch_rows: int = Field(32, ge=1, description="Questions answered at one time.")
    batch_tokens: int = Field(
        16_384,
        ge=1,
        description="Tokens that those may come to, kept as keys and values.",
    )
    prefix_cache_mib: int = Field(
        256, ge=0, description="MiB of keys and values kept of what prompts begin with; 0: none."
    )
    body_timeout_s: float = Field(
        30.0, gt=0, description="How long a request's body may take to arrive before 408."
    )
    body_memory_mib: int = Field(
        128, ge=16, description="MiB of request bodies held at one time; more wait, then get 429."
    )
    webhook_url: str | None = Field(
        None, description="Told of events and reports: https, or http on a host that is allowed."
    )
    webhook_secret: SecretStr | None = Field(
        None, description="What deliveries are signed with, 24 characters or more."
    )
    webhook_allowed_hosts: tuple[str, ...] = Field(
        (), description="Hosts, as JSON, beside this machine that may be told over plain http."
    )
    edit_cache_mib: int = Field(
        256, ge=1, description="Memory for edits that were needed last; the others are read anew."
    )
    answer_memory_mib: int = Field(
        64, ge=0, description="MiB of the newest answers, kept for feedback; 0 keeps none."
    )
    connection_limit: int = Field(1000, ge=8, description="Connections open at one time.")
    idle_timeout_s: float = Field(
        75.0, gt=0, description="How long a connection may be idle; longer than a proxy's."
    )
    decode_workers: int = Field(2, ge=1, le=32, description="Pictures decoded at one time.")
    decode_timeout_s: float = Field(
        5.0, gt=0, description="Seconds of computing that one picture may take to decode."
    )
    drain_timeout_s: float = Field(
        25.0, ge=0, description="How long SIGTERM waits for requests that still run."
    )
    store_timeout_s: float = Field(
        5.0, gt=0, description="How long a write waits for a locked database before 503."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Log.")

    @field_validator("admin_key")
    @classmethod
    def _hard_to_guess(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(key.get_secret_value()) < MIN_ADMIN_KEY:
            raise ValueError(f"it must have at least {MIN_ADMIN_KEY} characters, best random ones")
        return key

    @model_validator(mode="after")
    def _told_safely(self) -> Self:
        if self.webhook_url is None:
            return self
        parts = urlsplit(self.webhook_url)
        host = (parts.hostname or "").lower()
        if parts.scheme not in ("http", "https") or not host or parts.username is not None:
            raise ValueError(
                "webhook_url: it must be like https://example.org/path, without a name"
            )
        if parts.scheme == "http" and not (is_loopback(host) or host in self.webhook_allowed_hosts):
            raise ValueError(
                f"webhook_url: {host} may only be told over https; plain http is for this machine "
                "and for hosts that ERRATA_WEBHOOK_ALLOWED_HOSTS names"
            )
        if self.webhook_secret is None:
            raise ValueError("webhook_url: ERRATA_WEBHOOK_SECRET must be set to sign deliveries")
        return self

    @field_validator("webhook_secret")
    @classmethod
    def _signs(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(key_of(secret.get_secret_value())) < MIN_WEBHOOK_SECRET:
            raise ValueError(f"it must have at least {MIN_WEBHOOK_SECRET} bytes, best random ones")
        return secret

    @property
    def webhook_key(self) -> bytes:
        """What deliveries are signed with. Only where there is a URL."""
        assert self.webhook_secret is not None
        return key_of(self.webhook_secret.get_secret_value())

    @field_validator("allowed_hosts", "webhook_allowed_hosts")
    @classmethod
    def _names_only(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        """In the form in which `Host` headers are compared: small letters, no port."""
        names = tuple(host.strip().lower() for host in hosts)
        for name in names:
            if not is_host_name(name):
                raise ValueError(
                    f"{name!r} is no host name; write it without scheme, port, path or wildcard, "
                    'such as "errata.example.org"'
                )
        return tuple(name.strip("[]") for name in names)

    @field_validator("data_dir", "clip")
    @classmethod
    def _at_home(cls, path: Path | None) -> Path | None:
        return path if path is None else path.expanduser()

    @field_validator("model")
    @classmethod
    def _model_at_home(cls, model: str) -> str:
        return str(Path(model).expanduser()) if model.startswith("~") else model

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, url: str | None) -> str | None:
        if url is None:
            return url
        try:
            parsed = sa.make_url(url)
        except (sa.exc.ArgumentError, ValueError):
            raise ValueError("it is no URL: sqlite:///path, postgresql://user@host/name") from None
        # Which kinds there are, `app/store/dialects` knows.
        if url.startswith("sqlite") and (
            parsed.host or parsed.query or parsed.database in (None, "", ":memory:")
        ):
            raise ValueError(
                "it must name a file, for edits must outlive the process: "
                "sqlite:///path/to/errata.db, with %3F for a question mark, %25 for a percent sign"
            )
        return url

    @property
    def resolved_database_url(self) -> sa.URL:
        """A value, never text that is put together: a path may hold %, ? and #."""
        if self.database_url is not None:
            return sa.make_url(self.database_url)
        return sa.URL.create("sqlite", database=str((self.data_dir / "errata.db").resolve()))

    @property
    def parts_dir(self) -> Path:
        """Where parts measured of backbones lie, and thresholds calibrated anew."""
        return self.data_dir / "backbones"

    @property
    def model_name(self) -> str:
        """What answers call the model: the last part of a path, a hub id as it is."""
        path = Path(self.model)
        return path.resolve().name or "model" if path.is_dir() else self.model

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = TomlConfigSettingsSource(settings_cls, toml_file=SETTINGS_FILE)
        assert isinstance(env_settings, EnvSettingsSource)
        env_settings.env_vars = {
            name: value
            for name, value in env_settings.env_vars.items()
            if value is not None and not _is_of_kubernetes(name, value)
        }
        return init_settings, env_settings, file

    @classmethod
    def load(cls, **flags: Any) -> Self:
        """Settings from all sources; a flag that is None was not given.

        Raises `StartupError` naming every wrong or unknown name.
        """
        _refuse_unknown_variables(os.environ)
        try:
            return cls(**{name: value for name, value in flags.items() if value is not None})
        except ValidationError as error:
            raise StartupError("\n".join(_wording(item) for item in error.errors())) from error
        except (OSError, ValueError) as error:  # an unreadable errata.toml, or unparsable env JSON
            raise StartupError(f"settings: {error}") from error


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_host_name(name: str) -> bool:
    """A name or an address, in small letters; an IPv6 address also in brackets."""
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return _HOST_NAME.fullmatch(name) is not None
    return True


def _is_of_kubernetes(name: str, value: str) -> bool:
    """Whether it tells where a service called errata, or errata-something, is to be reached."""
    name = name.upper()
    if _OF_KUBERNETES.fullmatch(name):
        return True
    is_port = name.startswith(ENV_PREFIX) and name.endswith("_PORT")
    return is_port and _KUBERNETES_PORT.match(value) is not None


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    given = {
        name
        for name, value in environment.items()
        if name.upper().startswith(ENV_PREFIX) and not _is_of_kubernetes(name, value)
    }
    problems = [
        _unknown(name, known)
        for name in sorted(given - CLIENT_VARIABLES)
        if name.upper() not in known
    ]
    if problems:
        raise StartupError("\n".join(problems))


def _unknown(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"{name}: unknown setting" + (f"; did you mean {close[0]}?" if close else "")


def _wording(item: Any) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, Settings.model_fields, n=1)
        return f"{name}: unknown setting" + (f"; did you mean {close[0]}?" if close else "")
    # A mistake between several settings names them itself.
    text = str(item["msg"]).removeprefix("Value error, ")
    return f"{name}: {text}" if name else text
