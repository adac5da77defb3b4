"""Settings: one struct, read from `floodgate.toml` < environment < flags, checked whole before anything starts.

A field's `Meta` gives its bounds and its line of documentation; the example file and the README's table are made from
them. An unknown key is an error that names the nearest known one. Secrets are read from files:
`FLOODGATE_POSTGRES__URL_FILE` names a file that holds the value. What LIVE names only seeds the ledger, whose versions
of it are in force from then on (gateway/live.py).
"""

import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct, field

from gateway.settings_errors import Fault, complaint, find_faults, nearest, said_in
from gateway.settings_sense import contradictions

PREFIX = "FLOODGATE_"
CONFIG_VARIABLE = "FLOODGATE_CONFIG"
WORKERS_MAX = 64  # of one gateway on one host
# Read by other parts of the system, not settings of a process.
OTHER_VARIABLES = frozenset(
    {
        CONFIG_VARIABLE,
        "FLOODGATE_CORE",
        "FLOODGATE_DATA",
        "FLOODGATE_EDGE",
        "FLOODGATE_SANITIZE",
        "FLOODGATE_TOKEN_FILE",
        "FLOODGATE_URL",
    }
)

TOML_HEADER = re.compile(r"\s*\[\[?\s*([a-z_.]+)\s*\]")
TOML_KEY = re.compile(r"\s*([A-Za-z0-9_-]+)\s*=")
RULES_MAX = 1000  # of one section
# A take that leaves more free units does not put its SKU on watch (sql/0006_levels.sql). Were more called low, SKUs
# with leases would be put on watch at each look, and that and a take of several SKUs could wait for one another.
LOW_UNITS_MAX = 1000


class SettingsError(Exception):
    """The settings cannot be used; the message has a line for each fault: the key, what it has to be, what it is and
    where that was said.
    """

    def __init__(self, message: str, faults: tuple[Fault, ...] = ()) -> None:
        super().__init__(message)
        self.faults = faults


class Http(Struct, forbid_unknown_fields=True, frozen=True):
    host: Annotated[str, Meta(description="Address that the gateway listens on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port of the HTTP edge")] = 8080
    body_max_bytes: Annotated[int, Meta(ge=1024, le=1 << 20, description="Largest body of a request, in bytes")] = 65536
    body_timeout_ms: Annotated[int, Meta(ge=100, le=60000, description="Longest wait for a body, in milliseconds")] = (
        5000
    )
    connections_max: Annotated[int, Meta(ge=128, le=65536, description="Open connections of a worker")] = 8192
    bulk_requests_max: Annotated[int, Meta(ge=1, le=1024, description="Requests in bulk of a worker at once")] = 16
    workers: Annotated[int, Meta(ge=1, le=WORKERS_MAX, description="Processes of one gateway")] = 2


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


Pattern = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=200,
        description="SKUs that the rule is for, case-sensitive: `*` any characters, `?` one, `[AB]` one of these",
        examples=["SALE-*"],
    ),
]


class StockRule(Struct, forbid_unknown_fields=True, frozen=True):
    sku: Pattern
    shards: Annotated[int, Meta(ge=1, le=256, description="Shards of their stock", examples=[16])]


class LimitRule(Struct, forbid_unknown_fields=True, frozen=True):
    sku: Pattern
    units: Annotated[
        int, Meta(ge=1, le=1000000, description="Units of each such SKU that one customer may hold", examples=[2])
    ]


class RateRule(Struct, forbid_unknown_fields=True, frozen=True):
    """What is 0 is not limited, but for a burst: then it is what one second brings, at least one."""

    client: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=200,
            description="Clients that the rule is for: `*` any characters, `?` one, `[ab]` one of these",
            examples=["shop-*"],
        ),
    ]
    requests_per_s: Annotated[
        float,
        Meta(ge=0, le=100000, description="Requests of one client in a second, of all its routes", examples=[500]),
    ] = 0
    burst: Annotated[int, Meta(ge=0, le=100000, description="Requests of one client at once", examples=[100])] = 0
    customer_requests_per_s: Annotated[
        float, Meta(ge=0, le=100000, description="Orders of one customer of the client in a second", examples=[2])
    ] = 0
    customer_burst: Annotated[
        int, Meta(ge=0, le=100000, description="Orders of one customer of the client at once", examples=[5])
    ] = 0


class Stock(Struct, forbid_unknown_fields=True, frozen=True):
    shards: Annotated[
        int, Meta(ge=1, le=256, description="Shards of a SKU's stock that no rule and no command names")
    ] = 4
    lease_units_max: Annotated[int, Meta(ge=1, le=1000000, description="Units of one refill while there is plenty")] = (
        512
    )
    lease_ahead_ms: Annotated[
        int, Meta(ge=1, le=10000, description="How long a refill should last, in milliseconds")
    ] = 50
    park_ms_max: Annotated[
        int, Meta(ge=1, le=60000, description="Longest wait of an order for stock, in milliseconds")
    ] = 500
    low_units: Annotated[int, Meta(ge=0, le=LOW_UNITS_MAX, description="Units at or below which a SKU is low")] = 10
    rule: Annotated[
        tuple[StockRule, ...],
        Meta(
            max_length=RULES_MAX, description="Shards by SKU: the first rule that matches counts; `--shards` beats it"
        ),
    ] = ()


class Limits(Struct, forbid_unknown_fields=True, frozen=True):
    rule: Annotated[
        tuple[LimitRule, ...],
        Meta(
            max_length=RULES_MAX,
            description="Units per customer by SKU: the first rule that matches counts; the limit of a product"
            " and that of a sale's item beat it",
        ),
    ] = ()
    rate: Annotated[
        tuple[RateRule, ...],
        Meta(
            max_length=RULES_MAX,
            description="Requests by client: the first rule that matches counts; what it does not name is not limited",
        ),
    ] = ()


class OrderRule(Struct, forbid_unknown_fields=True, frozen=True):
    channel: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=200,
            description="Channels that the rule is for: `*` any characters, `?` one, `[ab]` one of these",
            examples=["tmall-*"],
        ),
    ]
    payment_timeout_s: Annotated[
        int, Meta(ge=1, le=31536000, description="Time to pay an order of such a channel, in seconds", examples=[86400])
    ]


class Orders(Struct, forbid_unknown_fields=True, frozen=True):
    payment_timeout_s: Annotated[int, Meta(ge=1, le=31536000, description="Time to pay an order, in seconds")] = 1800
    key_wait_ms_max: Annotated[
        int, Meta(ge=1, le=60000, description="Wait for the first request with the same key, in milliseconds")
    ] = 5000
    reply_ms_max: Annotated[
        int, Meta(ge=100, le=60000, description="Longest wait of a buyer for the ledger, in milliseconds")
    ] = 5000
    rule: Annotated[
        tuple[OrderRule, ...],
        Meta(
            max_length=RULES_MAX,
            description="Time to pay by channel: the first rule that matches counts; that of a sale beats it",
        ),
    ] = ()


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
    max_bytes: Annotated[
        int,
        Meta(ge=0, description="Size of each stream, in bytes, above which events wait in the ledger; 0: no bound"),
    ] = 0
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
    batch_days: Annotated[
        int, Meta(ge=1, le=3650, description="Days that the outcome of a commit is kept; no fewer than those of a key")
    ] = 30


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
    sample_ratio: Annotated[
        float, Meta(ge=0, le=1, description="Share of the requests that succeeded that have a line of their own")
    ] = 0.0
    requests_per_s_max: Annotated[
        int, Meta(ge=0, le=10000, description="Lines about requests, of a worker in a second; the rest is only counted")
    ] = 50


class Tracing(Struct, forbid_unknown_fields=True, frozen=True):
    endpoint: Annotated[
        str,
        Meta(
            pattern="^(https?://.+)?$",
            description="Where spans are sent (OTLP over HTTP, `http://HOST:4318/v1/traces`); empty: nowhere",
        ),
    ] = ""
    ratio: Annotated[
        float, Meta(ge=0, le=1, description="Share of the orders traced of which the caller does not say whether to")
    ] = 0.01


class Journal(Struct, forbid_unknown_fields=True, frozen=True):
    mode: Annotated[
        str,
        Meta(
            pattern="^(journal|reject)$",
            description="While the ledger is away: `journal` takes orders for the units in hand, `reject` answers 503",
        ),
    ] = "journal"
    folder: Annotated[
        str,
        Meta(
            description="Folder of the journals, on a disk of this host that outlives the process; empty: that of"
            " `floodgate up`, else there are none"
        ),
    ] = ""
    bytes_max: Annotated[int, Meta(ge=1 << 20, description="Largest journal of a worker, in bytes")] = 1 << 30
    patience_ms: Annotated[
        int,
        Meta(
            ge=50,
            le=60000,
            description="Longest commit, in milliseconds; then its orders go to the journal. Of a server that refuses"
            " connections a worker knows at once",
        ),
    ] = 1000


class Steward(Struct, forbid_unknown_fields=True, frozen=True):
    metrics_host: Annotated[
        str, Meta(description="Address at which a steward shows its metrics to whoever can reach it")
    ] = "127.0.0.1"
    metrics_port: Annotated[
        int, Meta(ge=0, le=65535, description="Port of a steward's metrics; 0: they are not shown")
    ] = 0


class Settings(Struct, forbid_unknown_fields=True, frozen=True):
    """The settings of one process, as it has read them at its start."""

    installation: Installation = field(default_factory=Installation)
    http: Http = field(default_factory=Http)
    batch: Batch = field(default_factory=Batch)
    stock: Stock = field(default_factory=Stock)
    limits: Limits = field(default_factory=Limits)
    orders: Orders = field(default_factory=Orders)
    postgres: Postgres = field(default_factory=Postgres)
    redis: Redis = field(default_factory=Redis)
    nats: Nats = field(default_factory=Nats)
    owner: Owner = field(default_factory=Owner)
    partitions: Partitions = field(default_factory=Partitions)
    retention: Retention = field(default_factory=Retention)
    journal: Journal = field(default_factory=Journal)
    secrets: Secrets = field(default_factory=Secrets)
    log: Log = field(default_factory=Log)
    tracing: Tracing = field(default_factory=Tracing)
    steward: Steward = field(default_factory=Steward)


SECTIONS: dict[str, type[Struct]] = {
    name: kind for name, kind in Settings.__annotations__.items() if isinstance(kind, type)
}
KEYS = {f"{section}.{key}" for section, kind in SECTIONS.items() for key in kind.__struct_fields__}
# What changes while processes run, by section. All else is read once, at the start.
LIVE: dict[str, tuple[str, ...]] = {
    "stock": Stock.__struct_fields__,
    "limits": Limits.__struct_fields__,
    "journal": ("mode",),
}
RULES: dict[str, type[Struct]] = {
    "stock.rule": StockRule,
    "limits.rule": LimitRule,
    "limits.rate": RateRule,
    "orders.rule": OrderRule,
}


def is_live(key: str) -> bool:
    """Whether the setting `section.name` changes while processes run."""
    section, _, name = key.partition(".")
    return name in LIVE.get(section, ())


def live_part(settings: "Settings") -> dict[str, dict[str, Any]]:
    """The live settings, by section."""
    return {
        section: {name: getattr(getattr(settings, section), name) for name in names} for section, names in LIVE.items()
    }


def with_live(settings: "Settings", live: "Settings") -> "Settings":
    """The settings, with the live ones of another."""
    sections = {
        section: msgspec.structs.replace(getattr(settings, section), **part)
        for section, part in live_part(live).items()
    }
    return msgspec.structs.replace(settings, **sections)


class Loaded(NamedTuple):
    """Settings, and where each key that some source has named comes from: `PATH, line N`, `the environment variable …`
    or `the flag --…`.
    """

    settings: Settings
    origins: dict[str, str]


class Said(NamedTuple):
    """A value as it stands in a source, and where."""

    value: Any
    origin: str


def load(
    config: Path | None = None, environ: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> Settings:
    """The settings from file, environment and flags (`{"http.port": 8081}`; None values are left out), later ones
    winning.

    Raises SettingsError, which names the key, for an unknown key, a wrong type, a value out of bounds, or a file that
    cannot be read.
    """
    return load_with_origins(config, environ, flags).settings


def load_with_origins(
    config: Path | None = None, environ: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> Loaded:
    """As `load`, with the origin of each key that is not left at its default."""
    environ = os.environ if environ is None else environ
    config = config or (Path(environ[CONFIG_VARIABLE]) if CONFIG_VARIABLE in environ else None)
    merged: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}
    for source in (_from_file(config), _from_environment(environ), _from_flags(flags or {})):
        for key, (value, origin) in source.items():
            section, _, name = key.partition(".")
            merged.setdefault(section, {})[name] = value
            origins[key] = origin
    return Loaded(checked(merged, origins), origins)


def checked(sections: Mapping[str, Mapping[str, Any]], origins: Mapping[str, str] | None = None) -> Settings:
    """The settings that these values give, by section; what is not named is at its default. Rules may be JSON text.

    Raises SettingsError, which names every fault, for an unknown key, a wrong type, a value out of bounds, or settings
    that contradict one another.
    """
    origins = origins or {}
    read: dict[str, dict[str, Any]] = {}
    unknown: list[str] = []
    for section, body in sections.items():
        for name, raw in body.items():
            key = f"{section}.{name}"
            if key in KEYS:
                read.setdefault(section, {})[name] = _read(key, raw, origins.get(key, ""))
            else:
                unknown.append(_unknown(key, KEYS, origins.get(key, "")))
    _refuse([*find_faults(read, Settings, strict=False)], origins, unknown)
    settings = msgspec.convert(read, Settings, strict=False)
    _refuse([*contradictions(partial(value_of, settings))], origins)
    return settings


def _refuse(faults: list[Fault], origins: Mapping[str, str], unknown: Sequence[str] = ()) -> None:
    if faults or unknown:
        lines = [*unknown]
        lines += [complaint(fault, origins.get(".".join(map(str, fault.path[:2])), "")) for fault in faults]
        raise SettingsError("\n".join(lines), tuple(faults))


def value_of(settings: Settings, key: str) -> Any:
    """The value of a key such as `http.port`."""
    section, _, name = key.partition(".")
    return getattr(getattr(settings, section), name)


def differences(one: Settings, other: Settings) -> list[str]:
    """The keys whose values differ, in the order of the file."""
    keys = (f"{section}.{name}" for section, kind in SECTIONS.items() for name in kind.__struct_fields__)
    return [key for key in keys if value_of(one, key) != value_of(other, key)]


def _read(key: str, value: Any, origin: str) -> Any:
    """A value as `convert` takes it; the keys of rules are known ones."""
    if key not in RULES:
        return value
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            raise SettingsError(f"{key} has to be a JSON array of rules: {error}{said_in(origin)}") from error
    known = {f"{key}.{name}" for name in RULES[key].__struct_fields__}
    for rule in value if isinstance(value, list) else ():
        for name in rule if isinstance(rule, dict) else ():
            if f"{key}.{name}" not in known:
                raise SettingsError(_unknown(f"{key}.{name}", known, origin))
    return value


def _from_file(config: Path | None) -> dict[str, Said]:
    if config is None:
        return {}
    try:
        text = config.read_text()
        document = tomllib.loads(text)
    except OSError as error:
        raise SettingsError(f"{config} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{config} is not TOML: {error}") from error
    lines = dict(_lines_of_keys(text))
    flat: dict[str, Said] = {}
    for section, body in document.items():
        if not isinstance(body, dict):
            raise SettingsError(f"{config}: {section} stands outside a section, such as [http]")
        for name, value in body.items():
            line = lines.get(f"{section}.{name}")
            flat[f"{section}.{name}"] = Said(value, f"{config}, line {line}" if line else str(config))
    return flat


def _lines_of_keys(text: str) -> Iterator[tuple[str, int]]:
    """(key, line) of the usual way to write a file; rules, and a key that is written in another way, have no line."""
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := TOML_HEADER.match(line):
            section = header.group(1)
        elif named := TOML_KEY.match(line):
            yield f"{section}.{named.group(1)}", number


def _from_environment(environ: Mapping[str, str]) -> dict[str, Said]:
    """`FLOODGATE_STOCK__SHARDS=8` is stock.shards; `…_FILE` names a file with the value."""
    flat: dict[str, Said] = {}
    for variable, raw in environ.items():
        if not variable.startswith(PREFIX) or variable in OTHER_VARIABLES:
            continue
        key = variable.removeprefix(PREFIX).lower().replace("__", ".", 1)
        origin = f"the environment variable {variable}"
        if key not in KEYS and key.endswith("_file") and key.removesuffix("_file") in KEYS:
            flat[key.removesuffix("_file")] = Said(_read_secret(variable, Path(raw)), f"{raw}, which {variable} names")
        else:
            flat[key] = Said(raw, origin)
    return flat


def _from_flags(flags: Mapping[str, Any]) -> dict[str, Said]:
    """The last word of a key is the flag's name."""
    return {
        key: Said(value, f"the flag --{key.rpartition('.')[2]}") for key, value in flags.items() if value is not None
    }


def _read_secret(variable: str, path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise SettingsError(f"{variable}: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{variable}: {path} is not text in UTF-8") from error


def _unknown(key: str, known: Collection[str], origin: str) -> str:
    key = key.removesuffix(".")  # Of a variable that names a section alone.
    return f"unknown setting {key}; the nearest is {nearest(key, known)}{said_in(origin)}"
