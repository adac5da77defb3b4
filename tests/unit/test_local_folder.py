"""The data folder: whose it is, what is deleted, what is kept secret."""

import stat
from pathlib import Path

import pytest

from deploy.local.failure import StackError
from deploy.local.folder import DataFolder, default_folder, new_hash_key, new_master_keys, write_private
from gateway.settings import load


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    made = DataFolder(tmp_path / "data")
    made.claim()
    return made


def test_claim_missing_folder_is_made(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "a" / "b")
    folder.claim()
    assert folder.secrets.is_dir()
    assert stat.S_IMODE(folder.secrets.stat().st_mode) == 0o700


def test_claim_own_folder_is_accepted_again(folder: DataFolder) -> None:
    write_private(folder.token, "token")
    DataFolder(folder.path).claim()
    assert folder.token.read_text() == "token"


def test_claim_foreign_folder_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StackError, match="not a data folder of Floodgate"):
        DataFolder(tmp_path).claim()
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_claim_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match="is not a folder"):
        DataFolder(tmp_path / "file").claim()


def test_wipe_deletes_data_and_secrets(folder: DataFolder) -> None:
    for data in (folder.postgres, folder.valkey, folder.nats):
        (data / "deep").mkdir(parents=True)
    write_private(folder.secrets / "hash.key", "secret")
    write_private(folder.token, "token")
    folder.write_ports({"nats": 1})
    folder.wipe()
    assert not any(
        data.exists() for data in (folder.postgres, folder.valkey, folder.nats, folder.token, folder.ports_file)
    )
    assert list(folder.secrets.iterdir()) == []


def test_wipe_keeps_what_it_did_not_make(folder: DataFolder) -> None:
    (folder.path / "notes.txt").write_text("mine")
    folder.wipe()
    assert (folder.path / "notes.txt").read_text() == "mine"


def test_wipe_leaves_the_target_of_a_foreign_link(folder: DataFolder, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "table").write_text("rows")
    folder.postgres.symlink_to(tmp_path / "elsewhere")
    folder.wipe()
    assert (tmp_path / "elsewhere" / "table").read_text() == "rows"


def test_ensure_secret_is_made_once_and_private(folder: DataFolder) -> None:
    path = folder.ensure_secret("hash.key", new_hash_key)
    first = path.read_text()
    assert folder.ensure_secret("hash.key", new_hash_key).read_text() == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_ensure_secret_lost_beside_data_is_not_replaced(folder: DataFolder) -> None:
    (folder.postgres / "cluster").mkdir(parents=True)
    with pytest.raises(StackError, match=r"master\.keys is gone"):
        folder.ensure_secret("master.keys", new_master_keys)


def test_generated_secrets_are_accepted_by_the_settings(folder: DataFolder) -> None:
    environ = {
        "FLOODGATE_SECRETS__MASTER_KEYS_FILE": str(folder.ensure_secret("master.keys", new_master_keys)),
        "FLOODGATE_SECRETS__HASH_KEY_FILE": str(folder.ensure_secret("hash.key", new_hash_key)),
    }
    settings = load(environ=environ)
    assert settings.secrets.master_keys.startswith("1:")
    assert settings.secrets.hash_key


def test_run_record_cut_short_counts_as_none(folder: DataFolder) -> None:
    folder.run_file.write_text('{"http": "http://127')
    assert folder.run() == {}


def test_holder_of_a_free_folder_is_nobody(folder: DataFolder) -> None:
    assert folder.holder() is None
    with folder.locked():
        assert folder.holder() is not None
    assert folder.holder() is None


def test_locked_twice_is_refused_with_the_holder(folder: DataFolder) -> None:
    with folder.locked(), pytest.raises(StackError, match=r"already runs .*pid \d+"), DataFolder(folder.path).locked():
        pytest.fail("two supervisors on one folder")


def test_default_folder_follows_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLOODGATE_DATA", str(tmp_path))
    assert default_folder() == tmp_path


def test_default_folder_of_an_ordinary_user_is_in_the_data_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FLOODGATE_DATA", raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "floodgate"
