"""Random bits switched off, so that ids and keys can be compared: both twins draw zeros, and keep none in store."""

import contextlib
import os
from collections.abc import Iterator
from unittest import mock

from tests.ext.twins import COMPILED, REFERENCE


@contextlib.contextmanager
def no_noise() -> Iterator[None]:
    """Inside, all random bytes are zero; afterwards none of them is left."""
    drop_pools()
    try:
        with mock.patch.object(os, "urandom", bytes):
            yield
    finally:
        drop_pools()


def drop_pools() -> None:
    """Empty the stores of random bytes by the way that a fork takes."""
    COMPILED.ids._drop_pool()
    COMPILED.sealing._drop_pool()
    REFERENCE.ids._pool.clear()
