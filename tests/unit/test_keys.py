"""Where the keyring comes from: SECRET_KEY, a key file that is made once, or an error that says what to set."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from flask import Flask

from flask_stateful.errors import ConfigError
from flask_stateful.keys import KEY_FILE, make_keyring, new_secret
from flask_stateful.sealing import Keyring
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.stores.sqlite import SQLiteStore

LONG = "a secret of 32 characters at least"


class SharedStore(MemoryStore):
    """A store that other machines share."""

    shared = True
    persistent = True


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The instance folder, which is not there yet."""
    return tmp_path / "deep" / "instance"


@pytest.fixture
def app(folder: Path) -> Flask:
    """An application without a key."""
    return Flask("shop", instance_path=str(folder))


@pytest.fixture
def on_disk(tmp_path: Path) -> list[Store]:
    """A store that only this machine has."""
    return [SQLiteStore(tmp_path / "state.sqlite3")]


def opens(keyring: Keyring, sealed_by: str | bytes) -> bool | None:
    """Tell whether a keyring opens what a secret has sealed, and whether that was stale; ``None`` if not."""
    key = keyring.find(Keyring(sealed_by).current.id)
    return None if key is None else key is not keyring.current


def test_new_secrets_differ() -> None:
    """Each new secret has 256 random bits, as 43 characters that no shell or file minds."""
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(len(secret) == 43 and secret.replace("-", "").replace("_", "").isalnum() for secret in secrets)


# SECRET_KEY


@pytest.mark.parametrize("key", [LONG, LONG.encode(), b"\xff\x00", "ü", "k"])
def test_secret_key_is_used(app: Flask, folder: Path, on_disk: list[Store], key: str | bytes) -> None:
    """The application's own key is used, text or bytes, and no file is made."""
    app.config["SECRET_KEY"] = key
    assert opens(make_keyring(app, on_disk), key) is False
    assert not folder.exists()


def test_fallbacks_open(app: Flask, on_disk: list[Store]) -> None:
    """What an earlier key has sealed opens, and is marked."""
    app.config.update(SECRET_KEY=LONG, SECRET_KEY_FALLBACKS=["old", b"older"])
    keyring = make_keyring(app, on_disk)
    assert [opens(keyring, key) for key in (LONG, "old", b"older", "oldest")] == [False, True, True, None]


@pytest.mark.parametrize("fallbacks", [None, [], (), ""])
def test_no_fallbacks(app: Flask, on_disk: list[Store], fallbacks: t.Any) -> None:
    """No fallbacks may be written as nothing, or as an empty list."""
    app.config.update(SECRET_KEY=LONG, SECRET_KEY_FALLBACKS=fallbacks)
    assert opens(make_keyring(app, on_disk), LONG) is False


@pytest.mark.parametrize(
    "fallbacks", ["old", b"old", 7, {"old": 1}, {"old"}, iter(["old"])], ids=lambda value: type(value).__name__
)
def test_fallbacks_that_are_no_list_are_refused(app: Flask, on_disk: list[Store], fallbacks: t.Any) -> None:
    """One key that is not in a list would be taken for many keys of one letter, and is an error."""
    app.config.update(SECRET_KEY=LONG, SECRET_KEY_FALLBACKS=fallbacks)
    with pytest.raises(ConfigError, match=r"must be a list of keys; write SECRET_KEY_FALLBACKS = \[old_key\]"):
        make_keyring(app, on_disk)


WRONG_KEYS: list[t.Any] = [7, 1.5, True, ["k"], bytearray(b"k"), object(), "s3cret\ud800"]


@pytest.mark.parametrize("key", WRONG_KEYS, ids=lambda key: type(key).__name__)
def test_key_of_another_type_is_refused(app: Flask, on_disk: list[Store], key: t.Any) -> None:
    """A key that is neither text nor bytes, or that UTF-8 cannot carry, is an error that does not repeat it."""
    app.config["SECRET_KEY"] = key
    with pytest.raises(ConfigError, match="must be text that is not empty; `flask state keygen` prints some") as caught:
        make_keyring(app, on_disk)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("key", [*WRONG_KEYS, "", b"", None], ids=lambda key: type(key).__name__)
def test_fallback_of_another_type_is_refused(app: Flask, on_disk: list[Store], key: t.Any) -> None:
    """A fallback that is no key, an empty one above all, is an error: it would open what anybody seals."""
    app.config.update(SECRET_KEY=LONG, SECRET_KEY_FALLBACKS=["old", key])
    with pytest.raises(ConfigError, match="must be text that is not empty"):
        make_keyring(app, on_disk)


# Without a key


@pytest.mark.parametrize("key", [None, "", b""])
def test_shared_store_needs_a_key(app: Flask, folder: Path, key: t.Any) -> None:
    """With a store that other machines share, there is no key file: the error says what to set, and how."""
    app.config["SECRET_KEY"] = key
    with pytest.raises(ConfigError, match="set SECRET_KEY to the same secret everywhere; `flask state keygen` prints"):
        make_keyring(app, [MemoryStore(), SharedStore()])
    assert not folder.exists()


def test_store_in_memory_needs_no_file(app: Flask, folder: Path) -> None:
    """With stores in memory only, the key is in memory too: another each time, and nothing is written."""
    one, other = make_keyring(app, [MemoryStore()]), make_keyring(app, [MemoryStore()])
    assert one.current.id != other.current.id
    assert not folder.exists()


def test_key_file_is_made_once(
    app: Flask, folder: Path, on_disk: list[Store], caplog: pytest.LogCaptureFixture
) -> None:
    """With a store of this machine, a key is made that only its user can read, said once, and used from then on."""
    with caplog.at_level(logging.WARNING):
        keyring = make_keyring(app, on_disk)
    path = folder / KEY_FILE
    assert [record.getMessage() for record in caplog.records] == [
        f"SECRET_KEY is not set; made the key file {path}, which must be kept as safe as the data"
    ]
    assert path.read_text().strip() not in caplog.text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [file.name for file in folder.iterdir()] == [KEY_FILE]
    caplog.clear()
    assert make_keyring(app, on_disk).current.id == keyring.current.id
    assert not caplog.records


def test_key_file_is_used_by_name(app: Flask, folder: Path, on_disk: list[Store]) -> None:
    """A key file that is there is used, with or without a line's end, and what it holds is the key."""
    folder.mkdir(parents=True)
    for text in (LONG, f"{LONG}\n", f"  {LONG}\r\n\n"):
        (folder / KEY_FILE).write_text(text)
        assert opens(make_keyring(app, on_disk), LONG) is False


def test_fallbacks_work_beside_a_key_file(app: Flask, on_disk: list[Store]) -> None:
    """Who takes SECRET_KEY away keeps what it has sealed by making it a fallback."""
    app.config["SECRET_KEY_FALLBACKS"] = [LONG]
    assert opens(make_keyring(app, on_disk), LONG) is True


@pytest.mark.parametrize("content", [b"", b"\n", b"short\n", b"\xff\xfe" * 40, "ü".encode() * 40, b"\0" * 10])
def test_bad_key_file_is_refused(app: Flask, folder: Path, on_disk: list[Store], content: bytes) -> None:
    """A key file that was cut, or holds something else, is an error that says what to do, and is left alone."""
    folder.mkdir(parents=True)
    path = folder / KEY_FILE
    path.write_bytes(content)
    with pytest.raises(
        ConfigError, match="holds no usable key; remove it, which ends every session, or set SECRET_KEY"
    ):
        make_keyring(app, on_disk)
    assert path.read_bytes() == content


def _is_a_folder(folder: Path) -> None:
    (folder / KEY_FILE).mkdir(parents=True)


def _is_in_a_file(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("not a folder")


def _is_nowhere(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.symlink_to("/proc/self/there/is/nothing")


@pytest.mark.parametrize("prepare", [_is_a_folder, _is_in_a_file, _is_nowhere])
def test_key_file_that_cannot_be_used_is_named(
    app: Flask, folder: Path, on_disk: list[Store], prepare: t.Callable[[Path], None]
) -> None:
    """Where a key file can be neither read nor made, the error names it and says what to set."""
    prepare(folder)
    with pytest.raises(ConfigError, match=r"state\.key can be neither read nor made \(.*\); set SECRET_KEY,"):
        make_keyring(app, on_disk)


#: Waits until it is told to, then makes a keyring and prints its id.
RACER = """
import sys
from flask import Flask
from flask_stateful.keys import make_keyring
from flask_stateful.stores.sqlite import SQLiteStore
app, stores = Flask("shop", instance_path=sys.argv[1]), [SQLiteStore(sys.argv[1] + "/state.sqlite3")]
print("ready", flush=True)
sys.stdin.readline()
print(make_keyring(app, stores).current.id.hex())
"""


def test_processes_that_start_together_use_one_key(folder: Path) -> None:
    """Of several processes that find no key file at the same time one makes it, and all use it."""
    command = [sys.executable, "-c", RACER, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    racers = [subprocess.Popen(command, text=True, **pipes) for _ in range(8)]  # type: ignore[call-overload]
    try:
        assert all(racer.stdout.readline() == "ready\n" for racer in racers)
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        printed = [racer.communicate(timeout=60) for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    assert len({out for out, _ in printed}) == 1, printed
    assert sum("made the key file" in err for _, err in printed) == 1
    assert [file.name for file in folder.iterdir()] == [KEY_FILE]


def test_late_loser_of_the_race_uses_the_winners_key(
    app: Flask, folder: Path, on_disk: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that sees no file, and finds one when it is about to put its own in place, uses the one it finds."""
    link = os.link

    def lose(draft: str | Path, path: str | Path) -> None:
        Path(path).write_text(LONG)
        link(draft, path)

    monkeypatch.setattr("flask_stateful.keys.os.link", lose)
    assert opens(make_keyring(app, on_disk), LONG) is False
    assert [file.name for file in folder.iterdir()] == [KEY_FILE]


def test_key_file_is_whole_or_not_there(
    app: Flask, folder: Path, on_disk: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is written before the file gets its name: who reads it meanwhile finds all of it or no file."""
    link, seen = os.link, []

    def look(draft: str | Path, path: str | Path) -> None:
        seen.append((Path(path).exists(), len(Path(draft).read_text().strip())))
        link(draft, path)

    monkeypatch.setattr("flask_stateful.keys.os.link", look)
    make_keyring(app, on_disk)
    assert seen == [(False, 43)]
