"""Settings: one struct, read from `floodgate.toml` < environment < flags, checked whole before anything starts.

A field's `Meta` gives its bounds and its line of documentation; the example file and the README's table are made from
them. An unknown key is an error that names the nearest known one. Secrets are read from files:
`FLOODGATE_POSTGRES__URL_FILE` names a file that holds the value.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

PREFIX = "FLOODGATE_"
CONFIG_VARIABLE = "FLOODGATE_CONFIG"
# Read by other parts of the system, not settings of a process.
OTHER_VARIABLES = frozenset(
    {CONFIG_VARIABLE, "FLOODGATE_CORE", "FLOODGATE_DATA", "FLOODGATE_SANITIZE", "FLOODGATE_TOKEN_FILE", "FLOODGATE_URL"}
)


class SettingsError(Exception):
    """The settings cannot be used; the message names the key and what to do."""


class Http(Struct, forbid_unknown_fields=True, frozen=True):
    host: Annotated[str, Meta(description="Address that the gateway listens on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port of the HTTP edge")] = 8080
    body_max_bytes: Annotated[int, Meta(ge=1024, le=1 << 20, description="Largest body of a request, in bytes")] = 65536
    body_timeout_ms: Annotated[int, Meta(ge=100, le=60000, description="Longest wait for a body, in milliseconds")] = (
        5000
    )
    connections_max: Annotated[int, Meta(ge=128, le=65536, description="Open connections of a worker")] = 8192


class Batch(Struct, forbid_unknown_fields=True, frozen=True):
    rows_max: Annotated[int, Meta(ge=1, le=1000, description="Orders of one commit")] = 1000
    bytes_max: Annotated[int, Meta(ge=65536, le=500000, description="Encoded rows of one commit, in bytes")] = 450000
    queue_rows_max: Annotated[int, Meta(ge=1, le=1000000, description="Orders that wait to be committed")] = 8000
    queue_bytes_max: Annotated[int, Meta(ge=65536, description="Encoded rows that wait to be committed, in bytes")] = (
        64 << 20
    )
    age_ms_max: Annotated[
        int,
        Meta(
            ge=1,
            le=60000,
            description="Age of the oldest waiting order, in milliseconds, that fills a queue of several commits",
        ),
    ] = 1000


class Stock(Struct, forbid_unknown_fields=True, frozen=True):
    shards: Annotated[int, Meta(ge=1, le=256, description="Shards of a new SKU's stock")] = 4
    lease_units_max: Annotated[int, Meta(ge=1, le=1000000, description="Units of one refill while there is plenty")] = (
        512
    )
    lease_ahead_ms: Annotated[
        int, Meta(ge=1, le=10000, description="How long a refill should last, in milliseconds")
    ] = 50
    park_ms_max: Annotated[
        int, Meta(ge=1, le=60000, description="Longest wait of an order for stock, in milliseconds")
    ] = 500


class Orders(Struct, forbid_unknown_fields=True, frozen=True):
    payment_timeout_s: Annotated[int, Meta(ge=1, le=31536000, description="Time to pay an order, in seconds")] = 1800
    key_wait_ms_max: Annotated[
        int, Meta(ge=1, le=60000, description="Wait for the first request with the same key, in milliseconds")
    ] = 5000
    reply_ms_max: Annotated[
        int, Meta(ge=100, le=60000, description="Longest wait of a buyer for the ledger, in milliseconds")
    ] = 5000


class Postgres(Struct, forbid_unknown_fields=True, frozen=True):
    url: Annotated[
        str, Meta(description="postgresql:// address of the ledger; empty: the embedded server of `floodgate up`")
    ] = ""
    pool_max: Annotated[int, Meta(ge=1, le=100, description="Connections for reading and for the catalogue")] = 8
    command_timeout_ms: Annotated[int, Meta(ge=100, le=600000, description="Longest statement, in milliseconds")] = (
        10000
    )


class Redis(Struct, forbid_unknown_fields=True, frozen=True):
    url: Annotated[
        str, Meta(description="redis:// address of the mirror; empty: the embedded server of `floodgate up`")
    ] = ""


class Nats(Struct, forbid_unknown_fields=True, frozen=True):
    url: Annotated[
        str, Meta(description="nats:// address of the stream; empty: the embedded server of `floodgate up`")
    ] = ""
    replicas: Annotated[int, Meta(ge=1, le=5, description="Replicas of the stream")] = 1
    max_age_s: Annotated[int, Meta(ge=600, description="How long the stream keeps an event, in seconds")] = 604800
    duplicate_window_s: Annotated[
        int, Meta(ge=1, description="How long the stream knows an event's id, in seconds")
    ] = 600
    ack_timeout_ms: Annotated[
        int, Meta(ge=10, le=60000, description="Wait for the stream's ack before the relay takes over, in milliseconds")
    ] = 5000


class Owner(Struct, forbid_unknown_fields=True, frozen=True):
    heartbeat_ms: Annotated[
        int, Meta(ge=10, le=60000, description="Between two heartbeats of an owner of leases, in milliseconds")
    ] = 1000
    timeout_ms: Annotated[
        int, Meta(ge=100, le=3600000, description="Silence after which an owner is dead, in milliseconds")
    ] = 10000


class Partitions(Struct, forbid_unknown_fields=True, frozen=True):
    days: Annotated[int, Meta(ge=1, le=366, description="Days of one partition")] = 1
    ahead: Annotated[int, Meta(ge=2, le=60, description="Partitions made ahead of time")] = 3


class Retention(Struct, forbid_unknown_fields=True, frozen=True):
    key_days: Annotated[int, Meta(ge=1, le=365, description="Days that an idempotency key is kept")] = 7


class Secrets(Struct, forbid_unknown_fields=True, frozen=True):
    master_keys: Annotated[
        str,
        Meta(description="Keys that wrap the orders' keys, `version:base64 of 32 bytes` each; the highest is in use"),
    ] = ""
    hash_key: Annotated[
        str, Meta(description="Key of the hashes of idempotency keys and bodies: base64 of 32 bytes")
    ] = ""


class Installation(Struct, forbid_unknown_fields=True, frozen=True):
    name: Annotated[
        str, Meta(pattern="^[a-z0-9-]{1,64}$", description="Name of this installation; the `source` of its events")
    ] = "local"


class Log(Struct, forbid_unknown_fields=True, frozen=True):
    level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$", description="debug, info, warning or error")] = (
        "info"
    )


class Settings(Struct, forbid_unknown_fields=True, frozen=True):
    """The settings of one process. Immutable: a change needs a restart."""

    installation: Installation = field(default_factory=Installation)
    http: Http = field(default_factory=Http)
    batch: Batch = field(default_factory=Batch)
    stock: Stock = field(default_factory=Stock)
    orders: Orders = field(default_factory=Orders)
    postgres: Postgres = field(default_factory=Postgres)
    redis: Redis = field(default_factory=Redis)
    nats: Nats = field(default_factory=Nats)
    owner: Owner = field(default_factory=Owner)
    partitions: Partitions = field(default_factory=Partitions)
    retention: Retention = field(default_factory=Retention)
    secrets: Secrets = field(default_factory=Secrets)
    log: Log = field(default_factory=Log)


SECTIONS: dict[str, type[Struct]] = {
    name: kind for name, kind in Settings.__annotations__.items() if isinstance(kind, type)
}
KEYS = {f"{section}.{key}" for section, kind in SECTIONS.items() for key in kind.__struct_fields__}


def load(
    config: Path | None = None, environ: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> Settings:
    """The settings from file, environment and flags (`{"http.port": 8081}`; None values are left out), later ones
    winning.

    Raises SettingsError, which names the key, for an unknown key, a wrong type, a value out of bounds, or a file that
    cannot be read.
    """
    environ = os.environ if environ is None else environ
    config = config or (Path(environ[CONFIG_VARIABLE]) if CONFIG_VARIABLE in environ else None)
    merged: dict[str, dict[str, Any]] = {}
    for source in (_from_file(config), _from_environment(environ), flags or {}):
        for key, value in source.items():
            if value is not None:
                _check_key(key)
                section, _, name = key.partition(".")
                merged.setdefault(section, {})[name] = value
    try:
        return msgspec.convert(merged, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(str(error)) from error


def _from_file(config: Path | None) -> dict[str, Any]:
    if config is None:
        return {}
    try:
        document = tomllib.loads(config.read_text())
    except OSError as error:
        raise SettingsError(f"{config} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{config} is not TOML: {error}") from error
    flat: dict[str, Any] = {}
    for section, body in document.items():
        if not isinstance(body, dict):
            raise SettingsError(f"{config}: {section} stands outside a section")
        flat |= {f"{section}.{key}": value for key, value in body.items()}
    return flat


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`FLOODGATE_STOCK__SHARDS=8` is stock.shards; `…_FILE` names a file with the value."""
    flat: dict[str, str] = {}
    for variable, raw in environ.items():
        if not variable.startswith(PREFIX) or variable in OTHER_VARIABLES:
            continue
        key = variable.removeprefix(PREFIX).lower().replace("__", ".", 1)
        if key not in KEYS and key.endswith("_file") and key.removesuffix("_file") in KEYS:
            flat[key.removesuffix("_file")] = _read_secret(variable, Path(raw))
        else:
            flat[key] = raw
    return flat


def _read_secret(variable: str, path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise SettingsError(f"{variable}: {path} cannot be read: {error.strerror}") from error


def _check_key(key: str) -> None:
    if key in KEYS:
        return
    near = difflib.get_close_matches(key, sorted(KEYS), n=1, cutoff=0.0)
    raise SettingsError(f"unknown setting {key}; the nearest is {near[0]}")
