"""What `up` and `status` print."""

import csv
import json
import shlex
from pathlib import Path

import pytest

from core_ext.limits import MONEY_MAX
from deploy.local.demo import FILE, SKU, rows
from deploy.local.folder import DataFolder, write_private
from deploy.local.page import ready_page, status_page, try_it, without_secret
from deploy.local.stack import without_overridden

RECORD = {
    "http": "http://127.0.0.1:8080",
    "postgres": "postgresql://floodgate:hush@127.0.0.1:1/floodgate",
    "redis": "redis://:hush@127.0.0.1:2/0",
    "nats": "nats://hush@127.0.0.1:3",
}


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    made = DataFolder(tmp_path / "the data")
    made.claim()
    write_private(made.token, "fg_token")
    write_private(made.seeded_file, "")
    return made


def test_ready_page_names_addresses_token_and_the_way_out(folder: DataFolder) -> None:
    page = ready_page(folder, RECORD, detached=True)
    for part in (*RECORD.values(), "fg_token", "floodgate down", str(folder.logs)):
        assert part in page


def test_ready_page_of_another_folder_names_it_in_its_commands(folder: DataFolder) -> None:
    assert f"floodgate audit --data {shlex.quote(str(folder.path))}" in ready_page(folder, RECORD, detached=False)


def test_try_it_is_one_shell_line_with_a_valid_order(folder: DataFolder) -> None:
    words = shlex.split(try_it(folder, RECORD["http"]))
    assert words[0] == "curl"
    assert json.loads(words[words.index("-d") + 1])["items"] == [{"sku": SKU, "quantity": 1}]


def test_try_it_without_demo_catalogue_lists_the_products(folder: DataFolder) -> None:
    folder.seeded_file.unlink()
    assert try_it(folder, RECORD["http"]).endswith("/v1/products")


def test_status_page_shows_no_secret() -> None:
    report = {**RECORD, "token": "fg_token", "pids": {"up": 1, "serve": 2}, "ready": True, "data": "/data"}
    page = status_page(report)
    assert "hush" not in page
    assert "fg_token" not in page
    assert "pid 2" in page


def test_without_secret_leaves_a_plain_address() -> None:
    assert without_secret("http://127.0.0.1:8080") == "http://127.0.0.1:8080"


def test_demo_rows_are_sellable_and_hold_what_the_page_buys() -> None:
    demo = list(rows())
    assert SKU in {row.sku for row in demo}
    assert all(0 < row.price <= MONEY_MAX and row.units > 0 for row in demo)
    with FILE.open(encoding="utf-8") as file:
        assert len(list(csv.reader(file))) == len(demo) + 1


def test_environment_drops_the_other_spelling_of_a_setting() -> None:
    environ = {"FLOODGATE_NATS__URL_FILE": "/x", "FLOODGATE_SECRETS__HASH_KEY": "", "HOME": "/home/me"}
    told = {"FLOODGATE_NATS__URL": "nats://1", "FLOODGATE_SECRETS__HASH_KEY_FILE": "/y"}
    assert without_overridden(environ, told) == {"HOME": "/home/me"}
