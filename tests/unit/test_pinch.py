"""What a worker tells about where stock pinches."""

from gateway.pinch import COUNTED_MAX, KEYS_MAX, Pinch


def test_pinch_take_tells_what_was_counted_and_who_is_parked_now() -> None:
    pinch = Pinch()
    pinch.refilled("A")
    pinch.refilled("A")
    pinch.refused("A")
    pinch.refused("B")
    assert pinch.take({"A": 3, "C": 1}) == {"A": (2, 1, 3), "B": (0, 1, 0), "C": (0, 0, 1)}


def test_pinch_take_again_starts_from_nothing() -> None:
    pinch = Pinch()
    pinch.refilled("A")
    pinch.refused("B")
    pinch.take({})
    assert pinch.take({}) == {}


def test_pinch_take_leaves_out_keys_that_nobody_waits_for_any_more() -> None:
    assert Pinch().take({"A": 0}) == {}


def test_pinch_take_keeps_the_keys_with_most_going_on() -> None:
    pinch = Pinch()
    for number in range(KEYS_MAX + 10):
        for _ in range(number + 1):
            pinch.refused(f"{number:02d}")
    taken = pinch.take({})
    assert list(taken) == [f"{number:02d}" for number in range(KEYS_MAX + 9, 9, -1)]


def test_pinch_take_puts_orders_without_units_before_refills() -> None:
    pinch = Pinch()
    for _ in range(100):
        pinch.refilled("refilled")
    pinch.refused("refused")
    assert list(pinch.take({"parked": 2})) == ["parked", "refused", "refilled"]


def test_pinch_counts_a_bounded_number_of_keys() -> None:
    pinch = Pinch()
    for number in range(COUNTED_MAX):
        pinch.refused(f"{number}")
    pinch.refused("one more")
    for _ in range(2):
        pinch.refused("0")
    taken = pinch.take({})
    assert taken["0"] == (0, 3, 0)
    assert "one more" not in taken
