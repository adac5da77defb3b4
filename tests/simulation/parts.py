"""What all worlds share and none changes: the settings, with waits that are short for a virtual clock too, the
products, the keys, and the client that all buyers use.
"""

from collections.abc import Collection
from random import Random

import msgspec

from core_ext.shapes import Product
from gateway.domain.access import Client
from gateway.domain.keys import Hasher
from gateway.domain.personal import Vault
from gateway.settings import Settings, load

COMMAND_S = 0.5  # a statement's time-out
OWNER_S = 2.0  # silence after which an owner is dead
HUNG_S = 2  # age at which a committer's transaction is ended
SHOP = Client(1, "shop", frozenset({"orders:write"}), frozenset({"app"}))
VAULT = Vault({1: bytes(32)})
HASHER = Hasher(bytes(32))
_DEFAULT = load(environ={})


def _changed(settings: Settings, **sections: dict[str, object]) -> Settings:
    parts = {
        section: msgspec.structs.replace(getattr(settings, section), **changes) for section, changes in sections.items()
    }
    return msgspec.structs.replace(settings, **parts)


_SHORT = _changed(
    _DEFAULT,
    postgres={"command_timeout_ms": int(COMMAND_S * 1000)},
    nats={"ack_timeout_ms": 500},
    owner={"heartbeat_ms": 500, "timeout_ms": int(OWNER_S * 1000)},
    orders={"key_wait_ms_max": 800, "reply_ms_max": 1500},
    stock={"park_ms_max": 700, "lease_units_max": 32},
    journal={"folder": "journals", "patience_ms": 300},
)
_REJECT = _changed(_SHORT, journal={"mode": "reject"})
_VARIANTS = (_SHORT, _SHORT, _REJECT, _changed(_SHORT, batch={"rows_max": 2}))


def settings_of(random: Random, traits: Collection[str], payment_s: int) -> Settings:
    """Most worlds have a journal; in some a commit takes two orders at most."""
    variants = (_SHORT,) if "journal" in traits else (_REJECT,) if "reject" in traits else _VARIANTS
    return _changed(random.choice(variants), orders={"payment_timeout_s": payment_s})


def products_of(skus: list[str], limited: set[str], limit: int) -> dict[str, Product]:
    """What is sold; of those in `limited` a buyer may hold `limit` units."""
    return {sku: Product(sku, "HEART T-LIGHT", 255, "CNY", limit=limit if sku in limited else None) for sku in skus}
