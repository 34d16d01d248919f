"""``flask state``: what it checks, purges and prints, and how it says what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask

from flask_stateful import Stateful
from flask_stateful.keys import KEY_FILE
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.stores.sqlite import SQLiteStore
from flask_stateful.testing import FakeClock, Fault, FaultyStore
from tests.services import Launch, Redis

LONG = "a secret of 32 characters at least"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The instance folder, which is not there yet."""
    return tmp_path / "instance"


@pytest.fixture
def app(folder: Path) -> Flask:
    """An application with a key and nothing else."""
    app = Flask("shop", instance_path=str(folder))
    app.config["SECRET_KEY"] = LONG
    return app


def run(app: Flask, *arguments: str) -> Result:
    """Run ``flask state`` in this process."""
    result = app.test_cli_runner().invoke(args=["state", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def problems(result: Result) -> list[str]:
    """Return what a check has listed, and make sure that it has failed."""
    assert result.exit_code == 1
    lines = [line.removeprefix("- ") for line in result.stdout.splitlines() if line.startswith("- ")]
    assert f"Error: {len(lines)} to mend" in result.stderr
    return lines


# check


def test_check_of_what_is_well(app: Flask, folder: Path) -> None:
    """Where nothing is wrong the check says so, and the store it has asked is there."""
    Stateful(app)
    result = run(app, "check")
    assert (result.exit_code, result.stdout) == (0, "All is well.\n")
    assert (folder / "state.sqlite3").exists()


def test_check_names_the_key_file(app: Flask, folder: Path) -> None:
    """A key file is no mistake, but is named, since it has to be kept safe."""
    app.config["SECRET_KEY"] = None
    Stateful(app)
    result = run(app, "check")
    assert result.exit_code == 0
    assert f"the key file {KEY_FILE} in the instance folder is used; keep it safe." in result.stdout
    assert (folder / KEY_FILE).exists()
    assert (folder / KEY_FILE).read_text().strip() not in result.output


def test_check_of_a_store_in_memory(app: Flask) -> None:
    """A store in memory works, and is named as what no server should use."""
    Stateful(app, store="memory://")
    assert problems(run(app, "check")) == [
        "the default store: it lives in memory, each worker has its own and a restart loses it"
    ]


@pytest.mark.parametrize("key", ["short", b"x" * 15, "ü" * 8])
def test_check_of_a_key_that_can_be_guessed(app: Flask, key: str | bytes) -> None:
    """A short key is named with its length, not with itself."""
    app.config["SECRET_KEY"] = key
    Stateful(app)
    [problem] = problems(run(app, "check"))
    assert (
        problem == f"SECRET_KEY has {len(key)} characters and can be guessed; `flask state keygen` prints a better one"
    )


@pytest.mark.parametrize("key", [7, ["k"], True])
def test_check_of_a_key_that_is_none(app: Flask, key: t.Any) -> None:
    """A key of another type is named, and does not keep the rest from being checked."""
    app.config["SECRET_KEY"] = key
    Stateful(app, store="memory://")
    key_problem, store_problem = problems(run(app, "check"))
    assert "must be text that is not empty" in key_problem
    assert store_problem.startswith("the default store:")


def test_check_of_the_cookie(app: Flask) -> None:
    """Everything that browsers would refuse about the session cookie is listed, a line each."""
    app.config.update(SESSION_COOKIE_NAME="__Host-id", SESSION_COOKIE_DOMAIN="example.com")
    Stateful(app)
    found = problems(run(app, "check"))
    assert len(found) == 2
    assert all(problem.startswith('SESSION_COOKIE_NAME = "__Host-id"') for problem in found)


def test_check_of_a_shared_store_without_a_key(app: Flask, redis_server: Redis) -> None:
    """A store that other machines share needs a key, and the check says so."""
    app.config["SECRET_KEY"] = None
    Stateful(app, store=redis_server.url)
    assert any("set SECRET_KEY to the same secret everywhere" in problem for problem in problems(run(app, "check")))


def test_check_of_a_key_file_that_others_can_read(app: Flask, folder: Path) -> None:
    """A key file that other users can read is a problem, with the command that mends it."""
    app.config["SECRET_KEY"] = None
    Stateful(app)
    run(app, "check")
    (folder / KEY_FILE).chmod(0o640)
    (problem,) = problems(run(app, "check"))
    assert problem.endswith(f"can be read by other users of this machine: chmod 600 {folder / KEY_FILE}")
    (folder / KEY_FILE).chmod(0o600)
    assert run(app, "check").exit_code == 0


def test_check_of_a_key_file_that_is_damaged(app: Flask, folder: Path) -> None:
    """A key file that holds no key is named by its place."""
    app.config["SECRET_KEY"] = None
    folder.mkdir()
    (folder / KEY_FILE).write_text("short")
    (folder / KEY_FILE).chmod(0o600)
    Stateful(app)
    [problem] = problems(run(app, "check"))
    assert problem.startswith(f"{folder / KEY_FILE} holds no usable key; remove it,")


def test_check_asks_every_store(app: Flask) -> None:
    """Each store is asked once and named as in the settings, also when another one is down."""

    class Sick(MemoryStore):
        persistent = True

        def check(self) -> list[str]:
            return ["it coughs", "it sneezes"]

    down = FaultyStore(Sick(), "unavailable")
    Stateful(app, store={"default": down, "sessions": Sick()})
    assert problems(run(app, "check")) == [
        "the default store: planned: the store is not there",
        "the sessions store: it coughs",
        "the sessions store: it sneezes",
    ]
    assert down.calls == {"check": 1}


@pytest.mark.parametrize("blocked_by", ["file", "folder", "other database"])
def test_check_of_a_place_that_no_file_can_be_at(app: Flask, folder: Path, blocked_by: str) -> None:
    """Where the database cannot be made or is not ours, the check names the file and what is wrong with it."""
    match blocked_by:
        case "file":
            folder.write_text("not a folder")
        case "folder":
            (folder / "state.sqlite3").mkdir(parents=True)
        case _:
            folder.mkdir()
            (folder / "state.sqlite3").write_bytes(b"something else entirely" * 100)
    Stateful(app)
    problem, *others = problems(run(app, "check"))
    assert problem.startswith("the default store: ")
    assert str(folder) in problem
    assert all(other.startswith("the cache store: ") for other in others)


def test_check_of_a_database_that_others_can_read(app: Flask, folder: Path) -> None:
    """A database that other users may open is named with the command that mends it."""
    Stateful(app)
    run(app, "check")
    (folder / "state.sqlite3").chmod(0o644)
    assert any(f"chmod 600 {folder / 'state.sqlite3'}" in problem for problem in problems(run(app, "check")))


def test_check_of_a_redis_that_is_gone(app: Flask, launch: Launch) -> None:
    """A server that does not answer is a problem like others, in one line, without its address's password."""
    server = launch(Redis)
    Stateful(app, store=f"redis://:s3cret@127.0.0.1:{server.port}/0")
    server.kill()
    [problem] = problems(run(app, "check"))
    assert problem.startswith("the default store: ")
    assert "s3cret" not in problem


def test_check_of_a_redis_that_forgets(app: Flask, launch: Launch) -> None:
    """A server that may evict sessions, or keeps nothing on disk, is named with the setting that mends it."""
    server = launch(Redis, "--maxmemory-policy", "allkeys-lru", "--save", "")
    Stateful(app, store=server.url)
    found = " ".join(problems(run(app, "check")))
    assert "set maxmemory-policy noeviction, not allkeys-lru" in found
    assert "set appendonly yes" in found


# purge


def test_purge_removes_what_has_expired(app: Flask, folder: Path) -> None:
    """What has expired is removed from every store, and how much that was is said for each."""
    with FakeClock() as clock:
        stores: dict[str, Store] = {"default": MemoryStore(), "sessions": SQLiteStore(folder / "s.sqlite3")}
        Stateful(app, store=stores)
        for store in stores.values():
            for number in range(7):
                store.set(f"gone{number}", b"", ttl=10)
            store.set("kept", b"", ttl=10_000)
        clock.advance(3600)
        result = run(app, "purge")
        assert (result.exit_code, result.stdout) == (0, "default: removed 7\nsessions: removed 7\n")
        assert run(app, "purge").stdout == "default: removed 0\nsessions: removed 0\n"
        assert all(store.get("kept") == b"" for store in stores.values())
    stores["sessions"].close()


def test_purge_of_a_store_that_needs_none(app: Flask, redis_server: Redis) -> None:
    """A store whose server removes what has expired says so, and that is no failure."""
    Stateful(app, store=redis_server.url)
    result = run(app, "purge")
    assert (result.exit_code, result.stdout) == (0, "default: RedisStore removes expired values by itself\n")


@pytest.mark.parametrize("kind", ["unavailable", "error"])
def test_purge_of_a_store_that_fails(app: Flask, kind: t.Literal["unavailable", "error"]) -> None:
    """A store that fails is named, in one line and without a traceback."""
    Stateful(app, store=FaultyStore(MemoryStore(), Fault(kind, "purge_expired")))
    result = run(app, "purge")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: default: planned: the store ")
    assert "Traceback" not in result.output


# keygen


def test_keygen_prints_a_key_that_is_good(app: Flask) -> None:
    """Each time it prints another key, which passes the check."""
    Stateful(app)
    keys = {run(app, "keygen").stdout for _ in range(3)}
    assert len(keys) == 3
    assert all(key.endswith("\n") for key in keys)
    app.config["SECRET_KEY"] = keys.pop().strip()
    assert run(app, "check").exit_code == 0


def test_help_lists_the_commands(app: Flask) -> None:
    """The group says what there is."""
    Stateful(app)
    shown = run(app, "--help").stdout
    for command in ("check", "purge", "keygen"):
        assert command in shown


# As a process

APPLICATION = """
import os
from flask import Flask
from flask_stateful import Stateful

def create_app():
    app = Flask("shop", instance_path=os.environ["INSTANCE"])
    app.config.from_prefixed_env("SHOP")
    Stateful(app)
    return app
"""


@pytest.fixture
def flask(tmp_path: Path, folder: Path) -> t.Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m flask state`` with settings from the environment."""
    (tmp_path / "shop.py").write_text(APPLICATION)

    def flask(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SHOP_", "FLASK_"))}
        return subprocess.run(
            [sys.executable, "-m", "flask", "--app", "shop:create_app", "state", *arguments],
            cwd=tmp_path,
            env={**inherited, "INSTANCE": str(folder), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return flask


def test_commands_work_as_a_process(flask: t.Callable[..., subprocess.CompletedProcess[str]], folder: Path) -> None:
    """``flask state`` finds the application and does what it says."""
    key = flask("keygen").stdout.strip()
    assert len(key) == 43
    assert not folder.exists()
    checked = flask("check", SHOP_SECRET_KEY=key)
    assert (checked.returncode, checked.stdout) == (0, "All is well.\n"), checked.stderr
    purged = flask("purge", SHOP_SECRET_KEY=key)
    assert (purged.returncode, purged.stdout) == (0, "default: removed 0\ncache: removed 0\n"), purged.stderr


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"SHOP_STATEFUL_STORE": "reddis://localhost"}, "did you mean redis://"),
        ({"SHOP_STATEFUL_STROE": "memory://"}, "did you mean STATEFUL_STORE?"),
        ({"SHOP_STATEFUL_LOCK_TIMEOUT": "soon"}, "STATEFUL_LOCK_TIMEOUT must be seconds"),
        ({"SHOP_STATEFUL_STORE": "7"}, "STATEFUL_STORE must be a URL"),
    ],
)
def test_wrong_environment_is_named(
    flask: t.Callable[..., subprocess.CompletedProcess[str]], environment: dict[str, str], words: str
) -> None:
    """A wrong setting in the environment ends the command, and its last lines say what to write."""
    done = flask("check", SHOP_SECRET_KEY=LONG, **environment)
    assert done.returncode == 1
    assert words in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"SHOP_SECRET_KEY": "12345"}, "SECRET_KEY and SECRET_KEY_FALLBACKS must be text"),
        ({"SHOP_SECRET_KEY": "s3cr3t"}, "SECRET_KEY has 6 characters and can be guessed"),
        ({"SHOP_SECRET_KEY_FALLBACKS": "old"}, "write SECRET_KEY_FALLBACKS = [old_key]"),
        ({"SHOP_STATEFUL_STORE": "sqlite:////proc/nowhere/state.sqlite3"}, "the default store: /proc/nowhere"),
        ({"SHOP_STATEFUL_STORE": "redis://127.0.0.1:1/0"}, "the default store: "),
        ({"SHOP_SESSION_COOKIE_SAMESITE": "Lux"}, 'SESSION_COOKIE_SAMESITE must be "Lax", "Strict" or "None"'),
        ({"SHOP_PERMANENT_SESSION_LIFETIME": "a month"}, "PERMANENT_SESSION_LIFETIME must be seconds"),
    ],
)
def test_check_finds_what_is_wrong_in_the_environment(
    flask: t.Callable[..., subprocess.CompletedProcess[str]], environment: dict[str, str], words: str
) -> None:
    """What keeps sessions from working is listed by the check, which fails without a traceback."""
    done = flask("check", **{"SHOP_SECRET_KEY": LONG, **environment})
    assert done.returncode == 1
    assert words in done.stdout
    assert "Traceback" not in done.stderr
