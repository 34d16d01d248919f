"""Every wrong setting is named, together with all others, and with what to write instead."""

from __future__ import annotations

import typing as t
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask

from flask_stateful import Stateful
from flask_stateful.errors import ConfigError
from flask_stateful.settings import cookie_options, read_settings, session_options
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.stores.sqlite import SQLiteStore

#: Names that a later version will know.
LATER = [
    "STATEFUL_SESSIONS_PER_USER",
    "STATEFUL_SESSIONS_POLICY",
]

DAY = 24 * 3600.0


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    """An application without any setting of ours."""
    app = Flask("shop", instance_path=str(tmp_path / "instance"))
    app.config["SECRET_KEY"] = "a secret of 32 characters at least"
    return app


def refusal(app: Flask, *, store: t.Any = None, **config: t.Any) -> str:
    """Return what the error says that these settings raise."""
    app.config.update(config)
    with pytest.raises(ConfigError) as caught:
        Stateful(app, store=store)
    return str(caught.value)


# What is read


def test_defaults(app: Flask) -> None:
    """Without a setting, state lies in an SQLite file under the instance folder, which is not made yet."""
    settings = read_settings(app, None)
    assert settings.namespace == "shop"
    assert (settings.store_timeout, settings.lock_timeout) == (0.25, 5.0)
    assert settings.keep_on_error is False
    assert settings.session_max_bytes == 1024 * 1024
    assert (settings.session_idle_timeout, settings.session_lifetime) == (None, None)
    assert list(settings.stores) == ["default", "cache"]
    assert (settings.cache_ttl, settings.cache_memory) == (300.0, 32 * 1024 * 1024)
    assert isinstance(settings.cache_store, SQLiteStore)
    assert Path(settings.cache_store.path) == Path(app.instance_path, "state-cache.sqlite3")
    store = settings.session_store
    assert isinstance(store, SQLiteStore)
    assert Path(store.path) == Path(app.instance_path, "state.sqlite3")
    assert not Path(app.instance_path).exists()


def test_every_setting_is_read(app: Flask) -> None:
    """Each setting has its effect; times may be seconds or a timedelta."""
    app.config.update(
        STATEFUL_NAMESPACE="other-shop",
        STATEFUL_STORE="memory://",
        STATEFUL_STORE_TIMEOUT=timedelta(milliseconds=100),
        STATEFUL_KEEP_ON_ERROR=True,
        STATEFUL_SESSION_IDLE_TIMEOUT=timedelta(minutes=30),
        STATEFUL_SESSION_LIFETIME=3600,
        STATEFUL_SESSION_MAX_BYTES=1000,
        STATEFUL_LOCK_TIMEOUT=2.5,
    )
    settings = read_settings(app, None)
    assert (settings.namespace, settings.keep_on_error) == ("other-shop", True)
    assert (settings.store_timeout, settings.lock_timeout) == (0.1, 2.5)
    options = session_options(app, settings)
    assert (options.namespace, options.max_bytes, options.lock_timeout) == ("other-shop", 1000, 2.5)
    assert (options.idle_timeout, options.lifetime) == (1800.0, 3600.0)
    assert isinstance(settings.session_store, MemoryStore)


def test_none_means_the_default(app: Flask) -> None:
    """A setting that is None, as configuration files leave it, counts as not set."""
    app.config.update({f"STATEFUL_{name}": None for name in ("NAMESPACE", "STORE", "SESSION_LIFETIME", "LOCK_TIMEOUT")})
    assert read_settings(app, None).lock_timeout == 5.0
    assert isinstance(read_settings(app, None).session_store, SQLiteStore)


@pytest.mark.parametrize(
    ("permanent", "idle", "lifetime"),
    [
        (timedelta(days=31), 31 * DAY, 90 * DAY),
        (timedelta(days=3650), 3650 * DAY, 3650 * DAY),
        (1800, 1800.0, 90 * DAY),
        (timedelta(seconds=0.5), 0.5, 90 * DAY),
        (0, 0.001, 90 * DAY),
        (timedelta(days=-1), 0.001, 90 * DAY),
        (timedelta.max, 36525 * DAY, 36525 * DAY),
    ],
)
def test_idle_timeout_is_flasks_lifetime(app: Flask, permanent: t.Any, idle: float, lifetime: float) -> None:
    """Without a setting of ours, Flask's lifetime is the idle timeout, whatever its size; it never shortens ours."""
    app.config["PERMANENT_SESSION_LIFETIME"] = permanent
    options = session_options(app, read_settings(app, MemoryStore()))
    assert (options.idle_timeout, options.lifetime) == (idle, lifetime)


@pytest.mark.parametrize("permanent", ["a month", None, float("nan"), float("inf"), 10**400, [31]])
def test_wrong_lifetime_of_flask_is_named(app: Flask, permanent: t.Any) -> None:
    """A lifetime that is neither seconds nor a timedelta is an error that says what to write."""
    app.config["PERMANENT_SESSION_LIFETIME"] = permanent
    with pytest.raises(ConfigError, match=r"PERMANENT_SESSION_LIFETIME .* write timedelta\(days=31\)"):
        session_options(app, read_settings(app, MemoryStore()))


def test_flasks_settings_are_read_at_first_use(app: Flask) -> None:
    """What belongs to Flask may be set after the extension, until the first session is looked at."""
    Stateful(app, store="memory://")
    app.config.update(SESSION_COOKIE_NAME="id", PERMANENT_SESSION_LIFETIME=60, SECRET_KEY="another")
    service = app.extensions["stateful"].session_service()
    assert service.cookie.options.name == "id"
    assert service.records.options.idle_timeout == 60.0


# Wrong values

SECONDS = "must be seconds or a timedelta, more than 0 and at most 100 years"
WRONG_SECONDS: list[t.Any] = [
    0,
    -1,
    0.0,
    float("nan"),
    float("inf"),
    "5",
    True,
    timedelta(0),
    timedelta.max,
    10**400,
    b"5",
]


@pytest.mark.parametrize("name", ["STORE_TIMEOUT", "SESSION_IDLE_TIMEOUT", "SESSION_LIFETIME", "LOCK_TIMEOUT"])
@pytest.mark.parametrize("value", WRONG_SECONDS, ids=lambda value: str(value)[:12])
def test_wrong_times_are_named(app: Flask, name: str, value: t.Any) -> None:
    """What is no time that can pass is an error that names the setting, the value and what to write."""
    text = refusal(app, **{f"STATEFUL_{name}": value})
    assert text == f"STATEFUL_{name} {SECONDS}, not {value!r}; write 1800 or timedelta(minutes=30)"


@pytest.mark.parametrize("value", [0, -1, 1.5, 1024.0, "1024", True, None or [], timedelta(1)])
def test_wrong_sizes_are_named(app: Flask, value: t.Any) -> None:
    """What is no number of bytes is an error that names the setting, the value and what to write."""
    text = refusal(app, STATEFUL_SESSION_MAX_BYTES=value)
    assert text == f"STATEFUL_SESSION_MAX_BYTES must be a number of bytes above 0, not {value!r}; write 1024 * 1024"


@pytest.mark.parametrize("value", [1, 0, "false", "True", "", []])
def test_wrong_flags_are_named(app: Flask, value: t.Any) -> None:
    """What is neither True nor False is an error, also the text "false", which would be true."""
    assert refusal(app, STATEFUL_KEEP_ON_ERROR=value) == f"STATEFUL_KEEP_ON_ERROR must be True or False, not {value!r}"


@pytest.mark.parametrize("value", ["", "a b", "a:b", "a\n", "x" * 65, 7, b"shop", "\u00a0", ["shop"]])
def test_wrong_namespaces_are_named(app: Flask, value: t.Any) -> None:
    """A namespace that could run into another, or that is no text, is an error that says what to write."""
    text = refusal(app, STATEFUL_NAMESPACE=value)
    assert text.startswith("STATEFUL_NAMESPACE must be 1 to 64 characters without spaces and colons; write ")


@pytest.mark.parametrize("value", ["shop", "x" * 64, "läden", "a.b-c_d/e"])
def test_namespaces(app: Flask, value: str) -> None:
    """Any text of up to 64 characters without spaces and colons is a namespace."""
    app.config["STATEFUL_NAMESPACE"] = value
    assert read_settings(app, None).namespace == value


# Stores


@pytest.mark.parametrize(
    ("store", "words"),
    [
        (7, "STATEFUL_STORE must be a URL, a store or a dict of these, not int; write STATEFUL_STORE = "),
        ([], "not list; write"),
        (Path("state.sqlite3"), "not PosixPath; write"),
        (MemoryStore, "not ABCMeta; write"),
        ("", "STATEFUL_STORE: a store URL begins with a scheme"),
        ("state.sqlite3", "STATEFUL_STORE: a store URL begins with a scheme"),
        ("redis:localhost", "two slashes"),
        ("reddis://localhost", "did you mean redis://"),
        ("sqlite://state.sqlite3", "three slashes"),
        ("sqlite:///:memory:", "write memory://"),
        ("memory://name", "write memory://"),
        ({"rows": "memory://"}, "STATEFUL_STORE has no part 'rows'; it has 'default' and 'sessions' and 'cache'"),
        ({1: "memory://"}, "STATEFUL_STORE has no part 1"),
        ({"sessions": None}, "not NoneType; write"),
        ({"sessions": "nowhere://"}, "no store is known for nowhere://"),
    ],
    ids=str,
)
@pytest.mark.parametrize("how", ["argument", "setting"])
def test_wrong_stores_are_named(app: Flask, store: t.Any, words: str, how: str) -> None:
    """What names no store is an error that says what to write, passed as an argument or set."""
    text = refusal(app, store=store) if how == "argument" else refusal(app, STATEFUL_STORE=store)
    assert words in text
    assert "\n" not in text


@pytest.mark.parametrize("url", ["redis://:s3cret@localhost:notaport/0", "s3cret", "reddis://user:s3cret@localhost"])
def test_passwords_are_not_repeated(app: Flask, url: str) -> None:
    """The error about a URL does not hold the password that is in it."""
    assert "s3cret" not in refusal(app, STATEFUL_STORE=url)


def test_argument_goes_before_the_setting(app: Flask) -> None:
    """A store that is passed is used, whatever the setting says; the one that was given is that very object."""
    store = MemoryStore()
    app.config["STATEFUL_STORE"] = "sqlite:///other.sqlite3"
    assert read_settings(app, store).session_store is store


def test_sessions_may_have_a_store_of_their_own(app: Flask) -> None:
    """The store named for sessions is used for them; all else is in the default store, SQLite if none is named."""
    store = MemoryStore()
    settings = read_settings(app, {"sessions": store})
    assert settings.session_store is store
    assert isinstance(settings.stores["default"], SQLiteStore)
    other = MemoryStore()
    settings = read_settings(app, {"default": other})
    assert settings.session_store is other


def test_store_gets_the_timeout_and_the_folder(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is opened by its URL gets the setting for its timeout, and relative paths are in the instance."""
    opened: list[tuple[str, dict[str, t.Any]]] = []

    def open_store(url: str, **options: t.Any) -> Store:
        opened.append((url, options))
        return MemoryStore()

    monkeypatch.setattr("flask_stateful.settings.open_store", open_store)
    app.config.update(STATEFUL_STORE_TIMEOUT=1.5, STATEFUL_STORE="sqlite:///a.sqlite3")
    read_settings(app, None)
    assert opened == [("sqlite:///a.sqlite3", {"root": app.instance_path, "timeout": 1.5})]


# Unknown names


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("STATEFUL_STROE", "STATEFUL_STORE"),
        ("STATEFUL_STORES", "STATEFUL_STORE"),
        ("STATEFUL_IDLE_TIMEOUT", "STATEFUL_SESSION_IDLE_TIMEOUT"),
        ("STATEFUL_MAX_BYTES", "STATEFUL_SESSION_MAX_BYTES"),
        ("STATEFUL_SESSION_TIMEOUT", "STATEFUL_SESSION_IDLE_TIMEOUT"),
        (
            "STATEFUL_SESSION",
            "STATEFUL_SESSION_IDLE_TIMEOUT or STATEFUL_SESSION_LIFETIME or STATEFUL_SESSION_MAX_BYTES",
        ),
        ("STATEFUL_LOCKTIMEOUT", "STATEFUL_LOCK_TIMEOUT"),
        ("STATEFUL_SESSION_LIFE_TIME", "STATEFUL_SESSION_LIFETIME"),
    ],
)
def test_misspelt_setting_is_named_with_the_right_one(app: Flask, name: str, near: str) -> None:
    """A setting that does not exist is an error that names the one that was meant."""
    assert refusal(app, **{name: "x"}) == f"{name} is not a setting; did you mean {near}?"


def test_setting_that_resembles_none_lists_all(app: Flask) -> None:
    """A setting that resembles none, or has no name at all, is an error that lists those that there are."""
    assert refusal(app, STATEFUL_="x").startswith("STATEFUL_ is not a setting; there are STATEFUL_ATOMIC,")
    del app.config["STATEFUL_"]
    text = refusal(app, STATEFUL_XYZZY=1)
    assert text.startswith("STATEFUL_XYZZY is not a setting; there are STATEFUL_ATOMIC, STATEFUL_CACHE_MEMORY,")


@pytest.mark.parametrize("name", LATER)
def test_settings_that_have_no_effect_yet_are_refused(app: Flask, name: str) -> None:
    """A setting that this version does nothing with is an error, not ignored."""
    assert refusal(app, **{name: 1}).startswith(f"{name} is not a setting;")


def test_settings_of_others_are_left_alone(app: Flask) -> None:
    """Only names under our prefix are ours."""
    app.config.update(STATEFULNESS=1, stateful_store=2, MY_STATEFUL_STORE=3, SESSION_TYPE="redis")
    read_settings(app, None)


def test_all_mistakes_are_reported_together(app: Flask) -> None:
    """One error lists every mistake, one a line, also those in several stores."""
    text = refusal(
        app,
        STATEFUL_NAMESPACE="a b",
        STATEFUL_LOCK_TIMEOUT="5",
        STATEFUL_SESSION_MAX_BYTES=0,
        STATEFUL_KEEP_ON_ERROR="no",
        STATEFUL_STROE="memory://",
        STATEFUL_STORE={"default": "nowhere://", "sessions": 7, "rows": "memory://"},
    )
    names = [line.split()[0].rstrip(":") for line in text.splitlines()]
    assert sorted(names) == [
        "STATEFUL_KEEP_ON_ERROR",
        "STATEFUL_LOCK_TIMEOUT",
        "STATEFUL_NAMESPACE",
        "STATEFUL_SESSION_MAX_BYTES",
        "STATEFUL_STORE",
        "STATEFUL_STORE",
        "STATEFUL_STORE",
        "STATEFUL_STROE",
    ]


def test_application_with_a_mistake_is_left_as_it_was(app: Flask) -> None:
    """Where a setting is wrong, nothing of ours is in the application, and it can be set up after all."""
    before = app.session_interface
    refusal(app, STATEFUL_LOCK_TIMEOUT=0)
    assert "stateful" not in app.extensions
    assert app.session_interface is before
    assert not app.after_request_funcs
    app.config["STATEFUL_LOCK_TIMEOUT"] = 1
    Stateful(app, store="memory://")


# The session cookie


def cookie_refusal(app: Flask, **config: t.Any) -> list[str]:
    """Return what the error says that Flask's settings for the cookie raise, by lines."""
    app.config.update(config)
    with pytest.raises(ConfigError) as caught:
        cookie_options(app)
    return str(caught.value).splitlines()


def test_cookie_defaults(app: Flask) -> None:
    """The cookie is HttpOnly, for the whole host and no other, and SameSite is said: Lax where Flask says nothing."""
    options = cookie_options(app)
    assert (options.name, options.domain, options.path) == ("session", None, "/")
    assert (options.httponly, options.secure, options.partitioned, options.samesite) == (True, False, False, "Lax")


@pytest.mark.parametrize(
    ("value", "expected"), [("lax", "Lax"), ("STRICT", "Strict"), ("Strict", "Strict"), (None, "Lax")]
)
def test_samesite_is_read_as_browsers_do(app: Flask, value: str | None, expected: str) -> None:
    """Upper and lower case do not count."""
    app.config["SESSION_COOKIE_SAMESITE"] = value
    assert cookie_options(app).samesite == expected


@pytest.mark.parametrize(("name", "path"), [("APPLICATION_ROOT", "/app"), ("SESSION_COOKIE_PATH", "/app")])
def test_cookie_path(app: Flask, name: str, path: str) -> None:
    """The cookie's path is Flask's setting for it, else the application's root."""
    app.config[name] = path
    assert cookie_options(app).path == path


@pytest.mark.parametrize("name", ["", "a b", "a;b", "a=b", "säschn", "a\n", '"a"', "a,b", "a\\b"])
def test_wrong_cookie_names_are_named(app: Flask, name: str) -> None:
    """A name that is no token (RFC 6265, 4.1.1) is an error that says what to write."""
    assert cookie_refusal(app, SESSION_COOKIE_NAME=name) == [
        'SESSION_COOKIE_NAME must be letters, digits and hyphens; write SESSION_COOKIE_NAME = "session"'
    ]


@pytest.mark.parametrize("value", ["Laxx", "", False, True, 0])
def test_wrong_samesite_is_named(app: Flask, value: t.Any) -> None:
    """A value that browsers would ignore is an error."""
    assert cookie_refusal(app, SESSION_COOKIE_SAMESITE=value) == [
        'SESSION_COOKIE_SAMESITE must be "Lax", "Strict" or "None"'
    ]


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"SESSION_COOKIE_SAMESITE": "None"}, 'SESSION_COOKIE_SAMESITE = "None"'),
        ({"SESSION_COOKIE_PARTITIONED": True}, "SESSION_COOKIE_PARTITIONED"),
        ({"SESSION_COOKIE_NAME": "__Secure-id"}, 'SESSION_COOKIE_NAME = "__Secure-id"'),
        ({"SESSION_COOKIE_NAME": "__Host-id"}, 'SESSION_COOKIE_NAME = "__Host-id"'),
        ({"SESSION_COOKIE_NAME": "__host-id"}, 'SESSION_COOKIE_NAME = "__host-id"'),
    ],
)
def test_what_needs_a_secure_cookie_is_named(app: Flask, config: dict[str, t.Any], what: str) -> None:
    """What browsers refuse without Secure is an error, and with it fine."""
    assert cookie_refusal(app, **config) == [
        f"{what} works only with a secure cookie; write SESSION_COOKIE_SECURE = True"
    ]
    app.config["SESSION_COOKIE_SECURE"] = True
    assert cookie_options(app).secure


@pytest.mark.parametrize("name", ["__Host-session", "__HOST-session"])
@pytest.mark.parametrize(
    "config",
    [{"SESSION_COOKIE_DOMAIN": "example.com"}, {"SESSION_COOKIE_PATH": "/app"}, {"APPLICATION_ROOT": "/app"}],
    ids=lambda config: next(iter(config)),
)
def test_host_prefix_with_domain_or_path_is_named(app: Flask, name: str, config: dict[str, str]) -> None:
    """A name that binds the cookie to the host is an error together with a domain or another path."""
    lines = cookie_refusal(app, SESSION_COOKIE_NAME=name, SESSION_COOKIE_SECURE=True, **config)
    assert lines == [
        f'SESSION_COOKIE_NAME = "{name}" allows no domain and only the path "/"; remove SESSION_COOKIE_DOMAIN and write'
        ' SESSION_COOKIE_PATH = "/"'
    ]


def test_all_mistakes_about_the_cookie_are_reported_together(app: Flask) -> None:
    """One error lists everything that browsers would refuse."""
    lines = cookie_refusal(
        app,
        SESSION_COOKIE_NAME="__Host-id",
        SESSION_COOKIE_DOMAIN="example.com",
        SESSION_COOKIE_SAMESITE="None",
        SESSION_COOKIE_PARTITIONED=True,
    )
    assert len(lines) == 4
