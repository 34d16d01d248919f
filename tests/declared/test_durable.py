"""State of users and of the application: one row each, kept for ever, merged field by field."""

from __future__ import annotations

import logging
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from flask_stateful import AppState, StateError, UserState, field, migrate, signals
from flask_stateful.errors import StateClosed
from flask_stateful.stores.memory import MemoryStore

from .conftest import Site
from .writer import WrittenApp, WrittenUser, in_store, make_app


class Spy(MemoryStore):
    """A store that counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.kept: dict[str, bytes] = {}

    def get_many(self, keys: t.Iterable[str]) -> dict[str, bytes]:
        self.calls.append("get_many")
        return super().get_many(keys)

    def add(self, key: str, value: bytes, ttl: t.Any = None) -> bool:
        assert ttl is None or ":session:" in key
        self.calls.append("add")
        self.kept[key] = value
        return super().add(key, value, ttl)

    def swap(self, key: str, old: bytes, new: bytes, ttl: t.Any = None) -> bool:
        assert ttl is None or ":session:" in key
        self.calls.append("swap")
        self.kept[key] = new
        return super().swap(key, old, new, ttl)


def user_class() -> type[t.Any]:
    class Member(UserState):
        newsletter: bool = False
        tags: list[str] = field(default_factory=list)
        iban: str = field("", sealed=True)

    return Member


def signed_in(site: Site, user_id: str = "ada") -> Site:
    """Sign the site's browser in."""
    site.visit(lambda: site.state.sessions.login(user_id))
    return site


def test_a_user_has_one_row(make_site: t.Any) -> None:
    """What a user's request writes is there for all sessions of that user, and for no other user."""
    site, member = signed_in(make_site()), user_class()()
    site.visit(lambda: setattr(member, "newsletter", True))
    other = site.app.test_client()
    assert site.visit(lambda: member.newsletter, other) is False
    site.visit(lambda: site.state.sessions.login("ada"), other)
    assert site.visit(lambda: member.newsletter, other) is True
    site.visit(lambda: site.state.sessions.login("bob"), other)
    assert site.visit(lambda: member.newsletter, other) is False


def test_nobody_reads_defaults_and_may_not_write(site: Site) -> None:
    """Without a user, defaults hold and a write says why it is refused and what to write instead."""
    member = user_class()()

    def view() -> None:
        assert member.newsletter is False
        with pytest.raises(StateError, match=r"nobody is signed in.*Member\.of\(user_id\)"):
            member.newsletter = True

    site.visit(view)
    with pytest.raises(StateError, match="nobody is signed in"):
        site.visit(lambda: member.tags.append("x"))


def test_the_right_row_is_used_when_the_user_changes(make_site: t.Any) -> None:
    """Within one request, what is written before a logout goes to that user, and after a login to the next."""
    site, member = signed_in(make_site()), user_class()()

    def view() -> t.Any:
        member.tags.append("ada's")
        site.state.sessions.logout()
        assert member.tags == []
        site.state.sessions.login("bob")
        member.tags = ["bob's"]
        return member.tags

    assert site.visit(view) == ["bob's"]
    with site.app.app_context():
        kind = type(member)
        assert (kind.of("ada").tags, kind.of("bob").tags) == (["ada's"], ["bob's"])


def test_a_row_is_read_once_and_only_when_looked_at() -> None:
    """A request asks the store once for a row however often it reads, and never for one it does not look at."""
    store = Spy()
    site, member = Site(store=store), user_class()()
    signed_in(site)
    store.calls.clear()
    site.visit(lambda: None)
    assert store.calls == []
    site.visit(lambda: (member.newsletter, member.tags, member.newsletter))
    assert store.calls == ["get_many"]


def test_rows_hold_no_user_id_and_no_readable_seal() -> None:
    """The store's key hides the user's id, and a sealed field shows neither itself nor under another user."""
    store = Spy()
    site, member = Site(store=store), user_class()()
    with site.app.app_context():
        kind = type(member)
        kind.of("ada@example.org").iban = "DE02120300000000202051"
        kind.of("ada@example.org").newsletter = True
        kind.of("eve").newsletter = False
        ada, eve = store.kept
        assert "ada" not in ada
        assert b"DE02" not in store.kept[ada]
        assert kind.of("ada@example.org").iban == "DE02120300000000202051"
        store.set(eve, store.kept[ada])
        assert (kind.of("eve").iban, kind.of("eve").newsletter) == ("", True)


def test_an_unsealed_value_is_not_taken_for_a_sealed_one() -> None:
    """Whoever can write the store cannot put a value of their own into a sealed field."""
    store = Spy()
    site, member = Site(store=store), user_class()()

    class Forged(UserState, name="member"):
        iban: str = ""

    with site.app.app_context():
        type(member).of(1).iban = "genuine"
    with Site(store=store).app.app_context():
        Forged.of(1).iban = "forged"
    with site.app.app_context():
        assert type(member).of(1).iban == ""


def test_outside_a_request_each_write_saves_at_once(make_site: t.Any) -> None:
    """On the command line, a write is there for the next reader at once, and without a user it needs of()."""
    site, member = make_site(), user_class()()

    class Shop(AppState):
        closed: bool = False

    shop, kind = Shop(), type(member)
    with site.app.app_context():
        kind.of(3).newsletter = True
        shop.closed = True
        assert kind.of("3").newsletter is True
        assert shop.closed is True
        site.state.reset(shop)
        assert shop.closed is False
        with pytest.raises(StateError):
            member.newsletter = True


def test_another_users_row_from_a_request(make_site: t.Any) -> None:
    """An admin's page writes another user's row by of(), together with the rest of the request."""
    site, member = signed_in(make_site(), "admin"), user_class()()
    kind = type(member)

    def view() -> t.Any:
        kind.of("bob").tags.append("seen")
        kind.of("bob").newsletter = True
        return member.newsletter, kind.of("bob").newsletter

    assert site.visit(view) == (False, True)
    with site.app.app_context():
        assert (kind.of("bob").tags, kind.of("admin").tags) == (["seen"], [])


def test_a_failed_request_keeps_nothing(make_site: t.Any) -> None:
    """A response of 5xx discards what was changed."""
    site, member = signed_in(make_site()), user_class()()
    site.visit(lambda: (member.tags.append("x"), 500)[-1])
    assert site.visit(lambda: member.tags) == []


def test_writing_after_the_response_is_refused(make_site: t.Any) -> None:
    """What is written once the response has been saved is an error."""
    site = make_site()

    class Shop(AppState):
        closed: bool = False

    shop = Shop()
    with site.app.test_request_context("/"):
        assert shop.closed is False
        site.app.process_response(site.app.response_class())
        with pytest.raises(StateClosed, match=r"Shop\.closed"):
            shop.closed = True


def test_writers_of_different_fields_merge(make_site: t.Any) -> None:
    """A request that has read a row keeps its change and another's that came in between."""
    site = make_site()

    class Shop(AppState):
        closed: bool = False
        banner: str = ""
        tags: list[str] = []

    shop = Shop()

    def view() -> None:
        shop.tags.append("mine")
        assert shop.banner == ""
        with site.app.test_request_context("/"):
            shop.banner = "theirs"
            site.app.process_response(site.app.response_class())
        shop.closed = True

    site.visit(view)
    with site.app.app_context():
        assert (shop.closed, shop.banner, shop.tags) == (True, "theirs", ["mine"])


def test_processes_that_write_different_fields_keep_both(store_url: str) -> None:
    """Two processes that write one row at the same time, each its own field, lose none of 200 writes."""
    rounds = 100
    command = [sys.executable, str(Path(__file__).with_name("writer.py")), store_url]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    writers = [subprocess.Popen([*command, name, str(rounds)], **pipes, text=True) for name in ("first", "second")]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert (writer.returncode, errors) == (0, "")
    with make_app(store_url).app_context():
        assert (WrittenUser.of(7).first, WrittenUser.of(7).second) == (rounds, rounds)
        assert (WrittenApp().first, WrittenApp().second) == (rounds, rounds)


def test_another_worker_sees_a_change_at_its_next_request(store_url: str) -> None:
    """What one worker has saved, another one reads in its next request."""

    class Shop(AppState):
        closed: bool = False

    here, there, shop = Site(**in_store(store_url)), Site(**in_store(store_url)), Shop()
    assert there.visit(lambda: shop.closed) is False
    here.visit(lambda: setattr(shop, "closed", True))
    assert there.visit(lambda: shop.closed) is True


def shop_versions() -> tuple[type[t.Any], type[t.Any]]:
    class First(AppState, name="shop"):
        closed: bool = False
        key: str = field("", sealed=True)

    class Second(AppState, name="shop", version=2):
        open: bool = True
        key: str = field("", sealed=True)

    @migrate(Second, 1)
    def opened(old: dict[str, t.Any]) -> dict[str, t.Any]:
        return {"open": not old["closed"], "key": old.get("key", "")}

    return First, Second


def test_rows_migrate_when_they_are_read() -> None:
    """Version 2 reads what version 1 has left, sealed fields too; the first write moves the row."""
    store = Spy()
    first, second = shop_versions()
    with Site(store=store).app.app_context():
        old = first()
        old.closed = True
        old.key = "sesame"
    with Site(store=store).app.app_context():
        new = second()
        assert (new.open, new.key) == (False, "sesame")
        assert [key.rpartition(":")[2] for key in store.kept] == ["shop"]
        new.key = "other"
        assert (new.open, new.key) == (False, "other")
    assert [store.get(key) is not None for key in store.kept] == [False, True]


def test_an_older_deploy_never_destroys_a_newer_row() -> None:
    """Code of version 1 reads defaults where the row is newer, and what it writes leaves that alone."""
    store, (first, second) = Spy(), shop_versions()
    with Site(store=store).app.app_context():
        second().open = False
    with Site(store=store).app.app_context():
        assert first().closed is False
        first().closed = True
    with Site(store=store).app.app_context():
        assert second().open is False


def test_a_failing_migration_keeps_the_row(caplog: pytest.LogCaptureFixture) -> None:
    """Where a migration raises, defaults hold, also after a write, and the old row stays where it is."""
    store, (first, second) = Spy(), shop_versions()
    with Site(store=store).app.app_context():
        first().key = "secret"
    with Site(store=store).app.app_context(), caplog.at_level(logging.ERROR):
        assert second().key == ""
        second().open = False
    assert "secret" not in caplog.text
    assert "could not be migrated" in caplog.text
    with Site(store=store).app.app_context():
        assert first().key == "secret"


@pytest.mark.parametrize("junk", [b"", b"\x01", b"\x02\x80", b"\x01\x91\x01", b"\x01\x81\xa6closed\xc1", b"\xff" * 50])
def test_a_damaged_row_reads_as_defaults(junk: bytes) -> None:
    """Whatever the store holds, a view reads defaults, and what it writes then is whole."""
    store, (first, _) = Spy(), shop_versions()
    with Site(store=store).app.app_context():
        first().closed = True
        (key,) = store.kept
        store.set(key, junk)
        assert first().closed is False
        first().closed = True
        assert first().closed is True


def test_a_row_that_was_given_another_type_is_signalled(make_site: t.Any) -> None:
    """A field whose kept value does not fit reads as its default and is signalled; others stay."""
    store, heard = Spy(), list[t.Any]()

    class Before(AppState, name="shop"):
        closed: int = 0
        banner: str = ""

    class After(AppState, name="shop"):
        closed: bool = False
        banner: str = ""

    with Site(store=store).app.app_context():
        Before().closed = 7
        Before().banner = "hi"

    def listen(sender: object, **details: t.Any) -> None:
        heard.append(details)

    with Site(store=store).app.app_context(), signals.state_invalid.connected_to(listen):
        assert (After().closed, After().banner) == (False, "hi")
    assert heard == [{"name": "shop.closed", "reason": "type"}]


def test_key_rotation_keeps_rows(make_site: t.Any) -> None:
    """Rows are found after SECRET_KEY was changed; sealed fields open with a fallback, and any save seals them anew."""
    store, member = Spy(), user_class()
    with Site(store=store).app.app_context():
        for user in (1, 2):
            member.of(user).iban = "x1"
            member.of(user).newsletter = True
    for fallbacks, unsaved in ((["x" * 32], "x1"), ([], "")):
        site = Site(store=store)
        site.app.config.update(SECRET_KEY="y" * 32, SECRET_KEY_FALLBACKS=fallbacks)
        with site.app.app_context():
            assert (member.of(1).iban, member.of(1).newsletter) == ("x1", True)
            assert (member.of(2).iban, member.of(2).newsletter) == (unsaved, True)
            member.of(1).tags = ["written"]


def test_what_cannot_be_opened_is_kept(make_site: t.Any) -> None:
    """A sealed field whose key is missing survives writes of the other fields."""
    store, member = Spy(), user_class()
    with Site(store=store).app.app_context():
        member.of(1).iban = "x1"
    other = Site(store=store)
    other.app.config.update(SECRET_KEY="y" * 32)
    with other.app.app_context():
        member.of(1).newsletter = True
    with Site(store=store).app.app_context():
        assert (member.of(1).iban, member.of(1).newsletter) == ("x1", True)


def test_changes_are_signalled_when_saved(make_site: t.Any) -> None:
    """state_changed names each field that was written."""
    site, member, heard = signed_in(make_site()), user_class()(), list[str]()

    def listen(sender: object, name: str) -> None:
        heard.append(name)

    with signals.state_changed.connected_to(listen):
        site.visit(lambda: (setattr(member, "newsletter", True), member.tags.append("a")))
    assert sorted(heard) == ["member.newsletter", "member.tags"]


@pytest.mark.parametrize("user_id", ["", True, None, 1.5])
def test_a_user_id_must_be_one(user_id: t.Any) -> None:
    """of() takes text and whole numbers that are not empty."""
    with pytest.raises((TypeError, ValueError), match="user id"):
        user_class().of(user_id)


def test_a_page_of_a_user_is_not_cached_for_all(make_site: t.Any) -> None:
    """A cached view that reads a user's state without varying by the user is not stored."""
    site, member = make_site(), user_class()()

    @site.app.get("/profile")
    @site.state.cache.view(ttl=60)
    def profile() -> str:
        return str(member.newsletter)

    signed_in(site)
    assert site.browser.get("/profile").text == "False"
    with site.app.app_context():
        type(member).of("ada").newsletter = True
    assert site.browser.get("/profile").text == "True"


def test_check_warns_of_a_store_that_evicts() -> None:
    """Where rows are kept in a store that may evict them, `flask state check` names the classes; else it does not."""

    class Evicting(MemoryStore):
        durable = False  # type: ignore[assignment]

    class Shop(AppState):
        closed: bool = False

    for store, said in ((Evicting(), True), (MemoryStore(), False)):
        site = Site(store={"default": store, "sessions": MemoryStore()}, declared=[Shop])
        output = site.app.test_cli_runner().invoke(args=["state", "check"]).output
        assert ("it may evict what" in output and "Shop keep for ever" in output) is said


def test_a_page_of_a_user_from_elsewhere_is_not_cached_for_all() -> None:
    """Also where the user's id does not come from the session, a view that reads their state is not stored."""
    users = ["ada"]
    site, member = Site(user_id=lambda: users[0]), user_class()()

    @site.app.get("/profile")
    @site.state.cache.view(ttl=60)
    def profile() -> str:
        return str(member.newsletter)

    with site.app.app_context():
        type(member).of("ada").newsletter = True
    assert site.browser.get("/profile").text == "True"
    users[0] = "bob"
    assert site.browser.get("/profile").text == "False"
