"""Personal data at rest: sealed under a key of the order's own, opened only with both parts unchanged."""

import base64

import pytest

from core_ext.shapes import Sealed, ShipTo
from gateway.domain.personal import Vault, VaultError, parse_master_keys

ORDER, OTHER = b"\x01" * 16, b"\x02" * 16
NOTE = "请放门口"
KEY_TEXT = base64.b64encode(bytes(32)).decode()


@pytest.fixture
def vault() -> Vault:
    return Vault({1: bytes(32), 2: b"\x01" * 32})


def seal(vault: Vault) -> Sealed:
    sealed = vault.seal(ORDER, NOTE, ShipTo(name="张三", city="杭州市"))
    assert sealed is not None
    return sealed


def test_vault_opens_what_it_sealed(vault: Vault) -> None:
    personal = vault.open(ORDER, seal(vault))
    assert (personal.note, personal.ship_to) == (NOTE, ShipTo(name="张三", city="杭州市"))


def test_vault_seals_nothing_for_an_order_without_personal_data(vault: Vault) -> None:
    assert vault.seal(ORDER, None, None) is None


def test_vault_seals_a_note_alone(vault: Vault) -> None:
    sealed = vault.seal(ORDER, NOTE, None)
    assert sealed is not None
    assert vault.open(ORDER, sealed).ship_to is None


def test_vault_leaves_no_plain_text_in_what_is_stored(vault: Vault) -> None:
    sealed = seal(vault)
    for word in (NOTE, "张三", "杭州市"):
        assert word.encode() not in sealed.personal + sealed.wrapped


def test_vault_seals_the_same_data_differently_each_time(vault: Vault) -> None:
    first, second = seal(vault), seal(vault)
    assert first.personal != second.personal
    assert first.wrapped != second.wrapped


def test_vault_seals_under_the_highest_master_key(vault: Vault) -> None:
    assert seal(vault).master_version == 2


def test_vault_opens_what_an_older_master_key_sealed() -> None:
    sealed = seal(Vault({1: bytes(32)}))
    assert Vault({1: bytes(32), 2: b"\x01" * 32}).open(ORDER, sealed).note == NOTE


def test_vault_without_the_master_key_says_which_is_missing(vault: Vault) -> None:
    with pytest.raises(VaultError, match="master key 2 is missing"):
        Vault({1: bytes(32)}).open(ORDER, seal(vault))


def test_vault_refuses_a_row_that_was_moved_to_another_order(vault: Vault) -> None:
    with pytest.raises(VaultError, match="changed"):
        vault.open(OTHER, seal(vault))


@pytest.mark.parametrize("part", ["personal", "wrapped"])
@pytest.mark.parametrize("at", [1, 13, -1])
def test_vault_refuses_what_was_changed_by_one_bit(vault: Vault, part: str, at: int) -> None:
    sealed = seal(vault)
    parts = {"personal": bytearray(sealed.personal), "wrapped": bytearray(sealed.wrapped)}
    parts[part][at] ^= 1
    with pytest.raises(VaultError, match="changed"):
        vault.open(ORDER, Sealed(bytes(parts["personal"]), sealed.master_version, bytes(parts["wrapped"])))


def test_vault_refuses_a_format_that_it_does_not_know(vault: Vault) -> None:
    sealed = seal(vault)
    with pytest.raises(VaultError, match="format"):
        vault.open(ORDER, sealed._replace(personal=b"\x02" + sealed.personal[1:]))


def test_master_keys_are_read_by_version() -> None:
    assert parse_master_keys(f"1:{KEY_TEXT}\n 20:{KEY_TEXT}") == {1: bytes(32), 20: bytes(32)}


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        KEY_TEXT,
        "1:",
        "1:AAAA",
        "1:%%%%",
        *(f"{version}:{KEY_TEXT}" for version in ("0", "x", "-1", "2147483648")),
    ],
)
def test_master_keys_that_cannot_be_used_are_refused_without_being_shown(text: str) -> None:
    with pytest.raises(VaultError) as caught:
        parse_master_keys(text)
    assert KEY_TEXT not in str(caught.value)
