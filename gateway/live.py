"""The settings that change while a process runs. Whoever needs one reads it here at the moment of use and keeps no
copy, or asks to be told of changes.

The ledger's newest version is in force; before there is one, the process's own settings are. A version that cannot be
applied (another release wrote it) leaves the former one in force, and `fault` says why. A process that starts with such
a version has no former one, and must not go by its own settings: others sell by the ledger's.
"""

from collections.abc import Callable
from typing import Any

import asyncpg
import msgspec
import structlog

from gateway.domain.rules import Rules
from gateway.settings import (
    LIVE,
    RULES,
    Journal,
    Limits,
    RateRule,
    Settings,
    SettingsError,
    Stock,
    checked,
    is_live,
    live_part,
)
from persistence.postgres import live_settings
from persistence.postgres.connect import connect

# Live sections of which only some settings are.
PARTLY_LIVE = ("journal",)
SEEDED_BY = "file"  # the actor of version 1

log = structlog.get_logger("live")


class Live:
    """The live sections as they are in force now. `version` 0: those of the process's own settings."""

    def __init__(self, settings: Settings) -> None:
        self.version = 0
        self.fault: str | None = None
        self._known = False  # whether what is in force here is, or was, in force in the ledger
        self._seen = 0
        self._listeners: list[Callable[[], None]] = []
        self._take_over(settings)
        self._told = self.limits  # what the listeners know

    def on_limits(self, listener: Callable[[], None]) -> None:
        """Call `listener` now, and whenever other limits have come into force."""
        self._listeners.append(listener)
        listener()

    def shards_of(self, sku: str) -> int:
        """The shards of a SKU, or of a sale's stock of it, unless they were given by command."""
        return self._shards.find(sku) or self.stock.shards

    def limit_of(self, sku: str) -> int | None:
        """The units of a SKU that one customer may hold where neither product nor sale says so; None: any number."""
        return self._limits.find(sku)

    def rate_of(self, client: str) -> RateRule | None:
        """The rule for the rates of a client of this name and of its customers; None: they have none."""
        at = self._rates.find(client)
        return None if at is None else self.limits.rate[at]

    async def load(self, connection: asyncpg.Connection) -> int | None:
        """Bring the ledger's version into force. Returns the value of its topic; None as long as no version of the
        ledger could ever be applied.
        """
        revision, stored = await live_settings.current(connection)
        if stored is not None and stored.version != self._seen:
            self._apply(stored.version, stored.document)
            self._seen = stored.version
        self._known = self._known or stored is None or self.version > 0
        return revision if self._known else None

    def _apply(self, version: int, document: str) -> None:
        try:
            wanted = read_document(document)
        except SettingsError as error:
            kept = f"version {self.version} is in force" if self._known else "none is in force, and no order is taken"
            self.fault = f"version {version} cannot be applied ({error}); {kept}"
            log.warning("live_settings_not_applied", wanted=version, kept=self.version, error=str(error))
            return
        self._take_over(wanted)
        self.version, self.fault = version, None
        log.info("live_settings_applied", version=version)
        if self.limits != self._told:
            for listener in self._listeners:
                listener()
            self._told = self.limits

    def _take_over(self, settings: Settings) -> None:
        self.part = live_part(settings)
        self.stock: Stock = settings.stock
        self.limits: Limits = settings.limits
        self.journal_mode = settings.journal.mode
        self._shards = Rules([(rule.sku, rule.shards) for rule in self.stock.rule])
        self._limits = Rules([(rule.sku, rule.units) for rule in self.limits.rule])
        self._rates = Rules([(rule.client, at) for at, rule in enumerate(self.limits.rate)])


def read_document(document: str) -> Settings:
    """Settings with the live sections of a document of the ledger. Raises SettingsError, which names the key."""
    try:
        sections = msgspec.json.decode(document, type=dict[str, dict[str, Any]])
    except msgspec.DecodeError as error:
        raise SettingsError(str(error)) from error
    for section, part in sections.items():
        if section not in LIVE:
            raise SettingsError(f"{section} is no live section")
        if section in PARTLY_LIVE and (strange := sorted(part.keys() - set(LIVE[section]))):
            raise SettingsError(f"{section}.{strange[0]} is no live setting")
    return checked(sections)


def document_of(settings: Settings) -> str:
    """The live sections as the ledger keeps them: whole, so that another release's defaults change nothing. Rules of
    which there are none, and the journal's mode unless it is changed, are left out: an older release that does not know
    them can apply the rest.
    """
    sections = live_part(settings)
    if settings.journal.mode == Journal().mode:
        del sections["journal"]
    for key in RULES:
        section, _, name = key.partition(".")
        if is_live(key) and not sections[section][name]:
            del sections[section][name]
    return msgspec.json.encode(sections).decode()


async def seed(settings: Settings) -> None:
    """Write version 1 from these settings where the ledger has no version; else say in the log where they differ from
    what is in force. Raises LedgerUnavailableError.
    """
    connection = await connect(settings.postgres.url, "fg-migrate")
    try:
        if await live_settings.seed(connection, document_of(settings), SEEDED_BY):
            return
        live = Live(settings)
        await live.load(connection)
    finally:
        await connection.close()
    for section, ours in live_part(settings).items():
        if ours != live.part[section]:
            log.warning("live_settings_of_the_ledger_win", section=section, version=live.version)
