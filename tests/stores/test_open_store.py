"""Opening a store by its URL: each scheme, and each mistake with what to write instead."""

from __future__ import annotations

import math
import subprocess
import sys
import traceback
import types
import typing as t
from pathlib import Path
from urllib.parse import quote

import pytest

from flask_stateful import stores
from flask_stateful.errors import ConfigError
from flask_stateful.stores import open_store, register_scheme
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.stores.sqlite import SQLiteStore
from tests.services import Redis

#: What no message may repeat.
SECRET = "".join(["hunt", "er2"])  # not to be found in a line of source that a traceback shows


def refused(url: t.Any, **options: t.Any) -> str:
    """Return why a URL is refused, having checked that nothing that is printed with it is secret."""
    with pytest.raises(ConfigError) as raised:
        open_store(url, **options)
    assert SECRET not in "".join(traceback.format_exception(raised.value))
    return str(raised.value)


@pytest.fixture
def openers(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Return a module in which a test can put openers; what it registers is forgotten."""
    module = types.ModuleType("third_party")
    monkeypatch.setitem(sys.modules, "third_party", module)
    monkeypatch.setattr(stores, "_schemes", dict(stores._schemes))
    return module


class TestMemory:
    """``memory://``"""

    @pytest.mark.parametrize("url", ["memory://", "MEMORY://"])
    def test_opens(self, url: str) -> None:
        """Each URL opens a new store; schemes are the same in capitals."""
        first, second = open_store(url), open_store(url)
        assert type(first) is MemoryStore
        first.set("key", b"x")
        assert second.get("key") is None

    @pytest.mark.parametrize("url", ["memory://name", "memory:///", "memory://?max=1", f"memory://u:{SECRET}@host"])
    def test_has_no_name(self, url: str) -> None:
        """What follows the scheme would mean nothing, and is an error that names the right form."""
        assert refused(url).endswith("write memory://")


class TestSQLite:
    """``sqlite:///``"""

    def path(self, url: str, root: Path | None = None) -> str:
        store = open_store(url, root=root)
        store.close()
        assert isinstance(store, SQLiteStore)
        return store.path

    def test_relative_path_is_under_the_root(self, tmp_path: Path) -> None:
        """Three slashes begin a path under the root."""
        assert self.path("sqlite:///state.sqlite3", tmp_path) == str(tmp_path / "state.sqlite3")
        assert self.path("sqlite:///below/it.db", tmp_path) == str(tmp_path / "below" / "it.db")
        assert self.path("sqlite:///../beside.db", tmp_path) == str(tmp_path.parent / "beside.db")

    def test_absolute_path_needs_no_root(self, tmp_path: Path) -> None:
        """Four slashes begin an absolute path, with and without a root."""
        assert self.path(f"sqlite:///{tmp_path}/state.sqlite3") == str(tmp_path / "state.sqlite3")
        assert self.path(f"sqlite:///{tmp_path}/state.sqlite3", Path("/elsewhere")) == str(tmp_path / "state.sqlite3")

    @pytest.mark.parametrize("name", ["a b", "a#b", "a?b", "a%b", "caf\u00e9", "a:b", "[a]", "a&b=c", "a+b"])
    def test_path_is_percent_decoded(self, tmp_path: Path, name: str) -> None:
        """Any file name can be written with percent-encoding."""
        assert self.path(f"sqlite:///{quote(name)}", tmp_path) == str(tmp_path / name)

    def test_values_are_kept_in_that_file(self, tmp_path: Path) -> None:
        """Two stores of one URL hold the same data."""
        first, second = (open_store("sqlite:///state.sqlite3", root=str(tmp_path)) for _ in range(2))
        first.set("key", b"x")
        assert second.get("key") == b"x"
        first.close()
        second.close()

    @pytest.mark.parametrize("query", ["", "?", "?durability=full", "?durability=normal"])
    def test_options_are_passed_on(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, query: str) -> None:
        """Timeout and durability reach the store."""
        seen: list[t.Any] = []

        class Recording(MemoryStore):
            def __init__(self, path: Path, **options: t.Any) -> None:
                super().__init__()
                seen.extend([path, options])

        monkeypatch.setattr("flask_stateful.stores.sqlite.SQLiteStore", Recording)
        open_store(f"sqlite:///x.db{query}", root=tmp_path, timeout=1.5)
        durability = query.partition("=")[2]
        assert seen == [tmp_path / "x.db", {"timeout": 1.5} | ({"durability": durability} if durability else {})]

    def test_relative_path_without_root(self) -> None:
        """Without a root the message names the absolute form."""
        assert "four slashes: sqlite:////var/lib/state.sqlite3" in refused("sqlite:///state.sqlite3")

    @pytest.mark.parametrize(
        "url",
        ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://:memory:", "sqlite:///%3Amemory:", "sqlite://?a=b"],
    )
    def test_without_file(self, tmp_path: Path, url: str) -> None:
        """SQLite in memory would be one database for each connection: the message points to the store in memory."""
        assert refused(url, root=tmp_path).endswith("write memory://")

    @pytest.mark.parametrize(
        "url", ["sqlite://state.sqlite3", "sqlite://var/lib/x.db", f"sqlite://u:{SECRET}@h/x", "sqlite://["]
    )
    def test_two_slashes(self, tmp_path: Path, url: str) -> None:
        """Where a slash is missing the message shows both forms."""
        message = refused(url, root=tmp_path)
        assert "sqlite:///state.sqlite3" in message
        assert "sqlite:////var/lib/state.sqlite3" in message

    @pytest.mark.parametrize("url", ["sqlite:///a#b", "sqlite:////", "sqlite:///folder/", "sqlite:///a%00b"])
    def test_no_file_name(self, tmp_path: Path, url: str) -> None:
        """What cannot be a file, or was meant to be a part of its name, says how to write it."""
        assert "%23 for #" in refused(url, root=tmp_path)

    @pytest.mark.parametrize(
        "query", ["durability=ful", "durability=", "durable=full", "timeout=1", "durability=full&x=1", "full"]
    )
    def test_unknown_option(self, tmp_path: Path, query: str) -> None:
        """An option that does not exist is an error that names the one there is."""
        assert "?durability=full" in refused(f"sqlite:///a.db?{query}", root=tmp_path)


class TestRedis:
    """``redis://`` and its kin"""

    def test_opens_a_server(self, redis_server: Redis) -> None:
        """A Redis URL opens a store on that server."""
        store = open_store(redis_server.url)
        store.set("test_open_store", b"x", 60)
        assert store.get("test_open_store") == b"x"
        store.delete("test_open_store")
        store.close()

    @pytest.mark.parametrize(
        "url",
        [
            "redis://h:1/0",
            "rediss://h",
            "unix:///run/redis.sock?db=1",
            "valkey://h",
            "valkeys://h",
            "redis+cluster://h:1,i:2",
            "redis+sentinel://h:1,i:2/service",
            "ReDiS://H",
        ],
    )
    def test_schemes(self, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
        """Each of them goes to the Redis store as it is, the scheme in lower case, with the timeout."""
        seen: list[t.Any] = []

        def from_url(url: str, **options: t.Any) -> Store:
            seen.append((url, options))
            return MemoryStore()

        monkeypatch.setattr("flask_stateful.stores.redis.RedisStore.from_url", from_url)
        open_store(url, root="/elsewhere", timeout=2)
        scheme, _, rest = url.partition(":")
        assert seen == [(f"{scheme.lower()}:{rest}", {"timeout": 2})]

    @pytest.mark.parametrize(
        "url",
        [
            f"redis://:{SECRET}@h:port",
            f"redis://u:{SECRET}@[h",
            f"redis+sentinel://:{SECRET}@h",
            f"redis+cluster://:{SECRET}@h:x,i",
            f"unix://:{SECRET}@",
            f"redis://:{SECRET}@h:1/db?nonsense=1",
        ],
    )
    def test_malformed(self, url: str) -> None:
        """A malformed URL is an error that shows the right form."""
        assert "://" in refused(url)


class TestMistakes:
    """What is no URL of a store"""

    @pytest.mark.parametrize(
        ("url", "near"),
        [
            ("redos://h", "redis"),
            ("sqlite3:///x.db", "sqlite"),
            ("mem://", "memory"),
            ("redis+clusters://h", "redis+cluster"),
            ("valky://h", "valkey"),
            ("memcache://h", "memcached"),
            ("postgres://h", "postgresql"),
        ],
    )
    def test_did_you_mean(self, url: str, near: str) -> None:
        """A scheme that nearly exists is guessed, and all are listed."""
        message = refused(url)
        assert f"did you mean {near}://?" in message
        assert "Known are mariadb+pymysql, memcached, memory," in message

    def test_unlike_any(self) -> None:
        """A scheme that is like no other gets the list alone."""
        message = refused("zookeeper://h/db")
        assert "did you mean" not in message
        assert "Known are mariadb+pymysql, memcached, memory," in message

    @pytest.mark.parametrize(
        "url",
        ["", "state.sqlite3", "/var/lib/state.sqlite3", "localhost:6379", "://h", "1redis://h", "re dis://h", "//h"],
    )
    def test_no_scheme(self, url: str) -> None:
        """What has no scheme is shown what a URL looks like."""
        message = refused(url)
        assert "'sqlite:///state.sqlite3'" in message
        assert "'redis://localhost:6379/0'" in message

    @pytest.mark.parametrize("url", ["redis:h", "sqlite:state.sqlite3", "sqlite:/var/lib/x.db", "memory:"])
    def test_missing_slashes(self, url: str) -> None:
        """A scheme without its slashes is shown with them."""
        assert f"write {url.partition(':')[0]}://" in refused(url)

    @pytest.mark.parametrize("url", [" memory://", "memory://\n", "redis://h\r", "sqlite:///a\tb", "sqlite:///a\0b"])
    def test_white_space(self, url: str) -> None:
        """White space that came with a URL from a file is named as such."""
        assert "remove them" in refused(url)

    @pytest.mark.parametrize("url", [None, 5, b"memory://", Path("state.sqlite3"), MemoryStore()])
    def test_no_text(self, url: t.Any) -> None:
        """What is no text at all is an error that names its type."""
        assert f"not by {type(url).__name__}" in refused(url)

    @pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf])
    def test_no_timeout(self, timeout: float) -> None:
        """A call without an end, or with no time at all, cannot be asked for."""
        with pytest.raises(ValueError, match="timeout"):
            open_store("memory://", timeout=timeout)

    @pytest.mark.parametrize(
        "url",
        [
            f"redos://u:{SECRET}@h",
            f"u:{SECRET}@h",
            f"redis:u:{SECRET}@h",
            f" redis://u:{SECRET}@h",
            f"redis://u:{SECRET}@h:{SECRET}",
            f"memory://u:{SECRET}@h",
            f"sqlite://u:{SECRET}@h",
            f"sqlite:///{SECRET}?{SECRET}={SECRET}",
            f"{SECRET}@redis://h",
            f"redis+cluster://:{SECRET}@h:x",
            f"redis+sentinel://:{SECRET}@h",
        ],
    )
    def test_no_message_repeats_a_password(self, url: str) -> None:
        """Neither the message nor a cause that is printed with it contains what may be a password."""
        assert SECRET not in refused(url, root="/")


class TestThirdParties:
    """Schemes of others"""

    def test_registered_scheme_is_opened(self, openers: types.ModuleType) -> None:
        """A registered opener gets the URL and the timeout; a method of a class will do."""
        seen: list[t.Any] = []

        class EtcdStore(MemoryStore):
            @classmethod
            def from_url(cls, url: str, *, timeout: float) -> EtcdStore:
                seen.append((url, timeout))
                return cls()

        openers.EtcdStore = EtcdStore  # type: ignore[attr-defined]
        register_scheme("etcd", "third_party:EtcdStore.from_url")
        assert type(open_store("etcd://h/x", root="/", timeout=3)) is EtcdStore
        assert seen == [("etcd://h/x", 3)]
        assert "did you mean etcd://?" in refused("ectd://h")

    def test_module_is_imported_when_needed(self, openers: types.ModuleType) -> None:
        """Registering imports nothing; a package that is not installed is named when a URL needs it."""
        register_scheme("etcd", "no_such_package.stores:from_url")
        assert "needs the Python package no_such_package" in refused("etcd://h")

    def test_missing_opener(self, openers: types.ModuleType) -> None:
        """An opener that its module does not have is named."""
        register_scheme("etcd", "third_party:from_url")
        assert "third_party:from_url, which does not exist" in refused("etcd://h")

    def test_no_store(self, openers: types.ModuleType) -> None:
        """An opener that returns something else is named."""
        openers.from_url = lambda url, timeout: {}  # type: ignore[attr-defined]
        register_scheme("etcd", "third_party:from_url")
        assert "third_party:from_url does not" in refused("etcd://h")

    def test_unreadable_url(self, openers: types.ModuleType) -> None:
        """An opener's ValueError becomes a ConfigError without what it says, which may be a part of a password."""
        openers.from_url = lambda url, timeout: int(url)  # type: ignore[attr-defined]
        register_scheme("etcd", "third_party:from_url")
        assert "etcd:// URL cannot be read by third_party:from_url" in refused(f"etcd://{SECRET}")

    def test_registering_again(self, openers: types.ModuleType) -> None:
        """The same opener can be registered again; another one cannot take a scheme away."""
        register_scheme("etcd", "third_party:from_url")
        register_scheme("etcd", "third_party:from_url")
        with pytest.raises(ValueError, match="etcd:// is opened by third_party:from_url"):
            register_scheme("etcd", "third_party:other")
        with pytest.raises(ValueError, match="sqlite:// is opened by"):
            register_scheme("sqlite", "third_party:other")

    @pytest.mark.parametrize("scheme", ["", "Etcd", "1etcd", "et cd", "etcd://", "etcd:", "\u00e9tcd"])
    def test_impossible_scheme(self, openers: types.ModuleType, scheme: str) -> None:
        """What no URL can begin with is refused."""
        with pytest.raises(ValueError, match="lower-case"):
            register_scheme(scheme, "third_party:from_url")

    @pytest.mark.parametrize("opener", ["", "third_party", "third_party:", ":from_url", "third party:x", "a:b:c"])
    def test_impossible_opener(self, openers: types.ModuleType, opener: str) -> None:
        """An opener of another form is refused with the right one."""
        with pytest.raises(ValueError, match=r"package\.module:function"):
            register_scheme("etcd", opener)


def test_opening_imports_only_what_it_needs() -> None:
    """A store in memory is opened without the modules of the others."""
    code = (
        "import sys; from flask_stateful.stores import open_store; open_store('memory://');"
        "print([name for name in ('redis', 'valkey', 'flask_stateful.stores.redis') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
