"""Shared slots for the tests of those who write to them and of those who watch over them."""

import os

from gateway.slots import Slots, make_memory


def shared_slots(count: int) -> Slots:
    descriptor = make_memory(count)
    try:
        return Slots.attach(descriptor)
    finally:
        os.close(descriptor)
