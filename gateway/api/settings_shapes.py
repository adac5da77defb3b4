"""What the routes of the live settings take and give. The sections are those of gateway.settings, bounds included,
under names of their own: another shape of the API is called Stock.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from gateway import settings
from gateway.api.shapes import REASON_CHARS_MAX

VERSION_MAX = 999_999_999

Reason = Annotated[str, Meta(min_length=1, max_length=REASON_CHARS_MAX, description="Kept with the version")]
Instant = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


class StockSettings(settings.Stock, forbid_unknown_fields=True, frozen=True):
    """How stock is spread, promised and waited for. What is left out goes to its default."""


class LimitsSettings(settings.Limits, forbid_unknown_fields=True, frozen=True):
    """What one customer may hold, and one client ask for. What is left out goes to its default."""


class JournalSettings(Struct, forbid_unknown_fields=True, frozen=True):
    """What becomes of orders while the ledger is away. What is left out goes to its default."""

    mode: Annotated[
        Literal["journal", "reject"],
        Meta(description="`journal` takes orders for the units in hand, `reject` answers 503 `ledger_away`"),
    ] = "journal"


class SettingsIn(Struct, forbid_unknown_fields=True, frozen=True):
    """All live sections: they replace those in force."""

    stock: StockSettings
    limits: LimitsSettings
    journal: JournalSettings = field(default_factory=JournalSettings)
    reason: Reason | None = None


class RollbackIn(Struct, forbid_unknown_fields=True, frozen=True):
    version: Annotated[int, Meta(ge=1, le=VERSION_MAX, description="Whose content comes back, as a new version")]
    reason: Reason | None = None


class LiveSettings(Struct, frozen=True):
    """A version of the live sections. Version 0, without time and actor: nobody has ever written one, and each process
    goes by its own settings.
    """

    version: int
    at: Instant | None
    actor: Annotated[str, Meta(description="`client:NAME`, `user:NAME` or `file`", examples=["client:ops"])] | None
    reason: str | None
    stock: StockSettings
    limits: LimitsSettings
    journal: JournalSettings


class SettingsHistory(Struct, frozen=True):
    items: list[LiveSettings]


DOCUMENTED = (SettingsIn, RollbackIn, LiveSettings, SettingsHistory)

_SECTIONS: dict[str, Any] = {
    "stock": {"shards": 4, "low_units": 10, "rule": [{"sku": "SALE-*", "shards": 16}]},
    "limits": {"rule": [{"sku": "SALE-*", "units": 2}]},
    "journal": {"mode": "journal"},
}
SETTINGS_IN = _SECTIONS | {"reason": "sale of the 11th"}
ROLLBACK_IN: dict[str, Any] = {"version": 3, "reason": "back to what worked"}
LIVE_SETTINGS = _SECTIONS | {
    "version": 4,
    "at": "2026-11-10T15:59:30.250000Z",
    "actor": "client:ops",
    "reason": "sale of the 11th",
}
HISTORY = {"items": [LIVE_SETTINGS]}
