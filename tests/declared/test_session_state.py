"""Session state: each field under its own key, typed, merged, tracked and migrated."""

from __future__ import annotations

import dataclasses
import enum
import logging
import threading
import typing as t

import pytest
from flask import session

from flask_stateful import ConfigError, SessionState, StateConflict, field, migrate, signals
from flask_stateful.errors import StateClosed, ValueTooLarge

from .conftest import Site


@dataclasses.dataclass
class Item:
    sku: str
    tags: set[str] = dataclasses.field(default_factory=set)


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


def cart_class() -> type[t.Any]:
    class Cart(SessionState):
        items: list[int] = field(default_factory=list)
        note: str = ""
        boxes: list[Item] = []
        size: Size = Size.SMALL

    return Cart


def test_a_field_is_its_default_until_it_is_set(site: Site) -> None:
    """A value reads as its default, then as what was assigned, in that request and the next."""
    cart = cart_class()()
    assert site.visit(lambda: (cart.items, cart.note, site.state.known(cart, "note"))) == ([], "", False)
    site.visit(lambda: setattr(cart, "note", "gift"))
    assert site.visit(lambda: (cart.note, site.state.known(cart, "note"))) == ("gift", True)


def test_reading_defaults_stores_nothing(site: Site) -> None:
    """Looking at defaults, also at those that can change in place, makes no session."""
    cart = cart_class()()
    site.visit(lambda: (cart.items, cart.boxes, cart.size))
    assert "Set-Cookie" not in site.response.headers


def test_a_changed_default_is_saved(site: Site) -> None:
    """A default list that is appended to is saved, and later defaults are not touched by it."""
    cart = cart_class()()
    site.visit(lambda: cart.items.append(7))
    assert site.visit(lambda: cart.items) == [7]
    assert site.visit(lambda: cart.items, site.app.test_client()) == []


def test_nested_changes_are_seen(site: Site) -> None:
    """A change inside of a dataclass inside of a list is saved, and comes back as that class."""
    cart = cart_class()()
    site.visit(lambda: setattr(cart, "boxes", [Item("a")]))
    site.visit(lambda: cart.boxes[0].tags.add("new"))
    assert site.visit(lambda: cart.boxes) == [Item("a", {"new"})]


def test_fields_have_keys_of_their_own(site: Site) -> None:
    """Each field lies under its own key of flask.session, with the same value."""
    cart = cart_class()()

    def view() -> t.Any:
        cart.items = [1]
        cart.size = Size.LARGE
        cart.boxes.append(Item("b"))
        return sorted(session), session["cart.items"] is cart.items, session["cart.boxes"]

    assert site.visit(view) == (["cart.boxes", "cart.items", "cart.size"], True, [Item("b")])
    assert site.visit(lambda: (session["cart.size"], session["cart.boxes"])) == (Size.LARGE, [Item("b")])


def test_parallel_requests_merge_fields(site: Site) -> None:
    """Two requests of one session that change different fields both keep their change."""
    cart = cart_class()()
    site.visit(lambda: setattr(cart, "note", "first"))
    cookie = site.browser.get_cookie("session")
    assert cookie is not None
    other = site.app.test_client()
    other.set_cookie("session", cookie.value)

    def slow() -> None:
        assert cart.note == "first"
        with site.app.test_request_context("/", headers={"Cookie": f"session={cookie.value}"}):
            cart.items = [1]
            site.app.process_response(site.app.response_class())
        cart.note = "second"

    site.visit(slow)
    assert site.visit(lambda: (cart.items, cart.note)) == ([1], "second")


def test_the_lock_reads_again(site: Site) -> None:
    """Inside the lock the value is the stored one; one looked up before and changed in it is a conflict."""
    cart = cart_class()()
    site.visit(lambda: setattr(cart, "items", [1]))
    cookie = site.browser.get_cookie("session")
    assert cookie is not None

    def append_elsewhere() -> None:
        with site.app.test_request_context("/", headers={"Cookie": f"session={cookie.value}"}):
            cart.items.append(2)
            site.app.process_response(site.app.response_class())

    def view() -> None:
        before = cart.items
        append_elsewhere()
        with site.state.sessions.lock():
            before.append(3)

    def again() -> None:
        assert cart.note == ""
        append_elsewhere()
        with site.state.sessions.lock():
            cart.items.append(4)

    with pytest.raises(StateConflict, match=r"cart\.items"):
        site.visit(view)
    assert site.visit(lambda: cart.items) == [1, 2]
    site.visit(again)
    assert site.visit(lambda: cart.items) == [1, 2, 2, 4]


def test_a_default_taken_before_the_lock_is_an_orphan(site: Site) -> None:
    """A default that was handed out before another request has set the field is not written over it."""
    cart = cart_class()()
    site.visit(lambda: setattr(cart, "note", "x"))
    cookie = site.browser.get_cookie("session")
    assert cookie is not None

    def view() -> None:
        before = cart.items
        with site.app.test_request_context("/", headers={"Cookie": f"session={cookie.value}"}):
            cart.items = [9]
            site.app.process_response(site.app.response_class())
        with site.state.sessions.lock():
            before.append(1)

    with pytest.raises(StateConflict, match=r"cart\.items"):
        site.visit(view)
    assert site.visit(lambda: cart.items) == [9]


def test_what_does_not_fit_is_refused_at_assignment(site: Site) -> None:
    """A wrong value raises at once, naming class, field and type and not the value; raw assignment likewise."""
    cart = cart_class()()

    def view() -> None:
        with pytest.raises(TypeError, match=r"^Cart\.items must be list\[int\]; the fault lies at Cart\.items\[0\]$"):
            cart.items = ["secret"]
        with pytest.raises(TypeError, match=r"Cart\.note must be str, not int"):
            cart.note = 7
        with pytest.raises(ValueError, match=r"Cart\.size must be Size, and this str is not allowed$"):
            cart.size = "secret"

    site.visit(view)
    assert "Set-Cookie" not in site.response.headers


def test_nested_changes_are_checked_when_saved(make_site: t.Any) -> None:
    """A list that was given an item of the wrong type is not saved."""
    cart, site = cart_class()(), make_site()
    site.visit(lambda: setattr(cart, "items", [1]))
    with pytest.raises(TypeError, match=r"Cart\.items must be list\[int\]"):
        site.visit(lambda: cart.items.append("x"))
    assert site.visit(lambda: cart.items) == [1]


def test_a_stored_value_that_does_not_fit_is_dropped(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A value of another type reads as the default, is removed, logged and signalled without the value."""

    class Cart(SessionState, name="cart"):
        items: dict[str, int] = {}

    old, new = cart_class()(), Cart()
    heard: list[dict[str, t.Any]] = []
    other = Site(store=site.app.extensions["stateful"].settings.default_store)

    def listen(sender: object, **details: t.Any) -> None:
        heard.append(details)

    site.visit(lambda: (setattr(old, "items", [123456]), setattr(old, "note", "kept")))
    cookie = site.browser.get_cookie("session")
    assert cookie is not None
    other.browser.set_cookie("session", cookie.value)
    with signals.state_invalid.connected_to(listen), caplog.at_level(logging.WARNING):
        assert other.visit(lambda: (new.items, other.state.known(new, "items"), "cart.items" in session)) == (
            {},
            False,
            False,
        )
    assert heard == [{"name": "cart.items", "reason": "type"}]
    assert "123456" not in caplog.text
    assert other.visit(lambda: list(session)) == ["cart.note"]


def test_a_raw_read_of_what_does_not_fit_finds_nothing(site: Site) -> None:
    """Where flask.session meets such a value first, it is a missing key and the rest of the session stays."""

    class Cart(SessionState, name="cart"):
        items: dict[str, int] = {}

    other = Site(store=site.app.extensions["stateful"].settings.default_store, declared=[Cart])
    old = cart_class()()
    site.visit(lambda: (setattr(old, "items", [1]), session.update(name="Ada")))
    cookie = site.browser.get_cookie("session")
    assert cookie is not None
    other.browser.set_cookie("session", cookie.value)
    heard: list[str] = []

    def listen(sender: object, name: str, reason: str) -> None:
        heard.append(name)

    with signals.state_invalid.connected_to(listen):
        assert other.visit(lambda: (session.get("cart.items"), session["name"])) == (None, "Ada")
    assert heard == ["cart.items"]
    assert other.visit(lambda: list(session)) == ["name"]


def test_reset_brings_the_default_back(site: Site) -> None:
    """reset() removes named fields or all of them, also a default that was changed in place."""
    cart = cart_class()()
    site.visit(lambda: (setattr(cart, "items", [1]), setattr(cart, "note", "x")))

    def view() -> t.Any:
        site.state.reset(cart, "items")
        cart.boxes.append(Item("gone"))
        site.state.reset(cart, "boxes")
        return cart.items, cart.note, cart.boxes

    assert site.visit(view) == ([], "x", [])
    site.visit(lambda: site.state.reset(cart))
    assert site.visit(lambda: (cart.note, list(session))) == ("", [])


def test_a_failed_request_keeps_nothing(site: Site) -> None:
    """A response of 5xx discards what was changed."""
    cart = cart_class()()
    site.visit(lambda: setattr(cart, "items", [1]))

    def fail() -> int:
        cart.items.append(2)
        return 503

    site.visit(fail)
    assert site.visit(lambda: cart.items) == [1]


def test_changes_are_signalled_when_saved(site: Site) -> None:
    """state_changed names each field that was saved, nothing that was discarded, and carries no value."""
    cart, heard = cart_class()(), list[t.Any]()

    def listen(sender: object, **details: t.Any) -> None:
        heard.append((sender, details))

    with signals.state_changed.connected_to(listen):
        site.visit(lambda: (setattr(cart, "note", "x"), session.update(other=1), 500)[-1])
        assert heard == []
        site.visit(lambda: (setattr(cart, "note", "x"), session.update(other=1)))
    assert heard == [(site.app, {"name": "cart.note"})]


def test_max_bytes_bounds_a_field(site: Site) -> None:
    """A value whose encoding is longer than max_bytes is refused at assignment."""

    class Short(SessionState):
        text: str = field("", max_bytes=10)

    handle = Short()

    def view() -> None:
        handle.text = "x" * 9
        with pytest.raises(ValueTooLarge, match=r"Short\.text takes 11 bytes and allows 10"):
            handle.text = "x" * 10

    site.visit(view)
    assert site.visit(lambda: handle.text) == "x" * 9


def test_writing_after_the_response_is_refused(site: Site) -> None:
    """A streamed body that writes is told so."""
    cart = cart_class()()
    with site.app.test_request_context("/"):
        assert cart.note == ""
        site.app.process_response(site.app.response_class())
        with pytest.raises(StateClosed):
            cart.note = "late"


def versions() -> tuple[type[t.Any], type[t.Any]]:
    class First(SessionState, name="basket"):
        count: int = 0
        label: str = ""

    class Third(SessionState, name="basket", version=3):
        items: list[int] = []
        label: str = "none"

    @migrate(Third, 1)
    def counted(old: dict[str, t.Any]) -> dict[str, t.Any]:
        return {"numbers": list(range(old["count"])), "label": old.get("label", "")}

    @migrate(Third, 2)
    def renamed(old: dict[str, t.Any]) -> dict[str, t.Any]:
        return {"items": old["numbers"], "label": old["label"].upper(), "gone": 1}

    return First, Third


def hand_over(site: Site, **options: t.Any) -> Site:
    """Return a site of another deploy that the same browser visits."""
    other = Site(store=site.app.extensions["stateful"].settings.default_store, **options)
    cookie = site.browser.get_cookie("session")
    assert cookie is not None
    other.browser.set_cookie("session", cookie.value)
    return other


def test_old_fields_go_through_each_migration(site: Site) -> None:
    """Fields of version 1 arrive in version 3 by way of 2, under the new version's keys."""
    first, third = versions()
    old, new = first(), third()
    site.visit(lambda: (setattr(old, "count", 2), setattr(old, "label", "a")))
    later = hand_over(site)
    assert later.visit(lambda: (new.items, new.label)) == ([0, 1], "A")
    assert later.visit(lambda: sorted(session)) == ["basket.items~3", "basket.label~3"]
    later.visit(lambda: new.items.append(5))
    assert later.visit(lambda: new.items) == [0, 1, 5]


def test_an_older_deploy_destroys_nothing(site: Site) -> None:
    """Code of version 1 reads defaults where the stored state is newer, and what it writes leaves that alone."""
    first, third = versions()
    old, new = first(), third()
    site.visit(lambda: setattr(new, "items", [7]))
    earlier = hand_over(site)
    assert earlier.visit(lambda: (old.count, old.label)) == (0, "")
    earlier.visit(lambda: setattr(old, "count", 3))
    assert site.visit(lambda: new.items) == [7]


def test_a_failing_migration_keeps_the_data(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Where a migration raises, defaults hold, it is logged without values, and the old fields stay."""
    first, third = versions()
    old, new = first(), third()
    site.visit(lambda: setattr(old, "label", "secret"))
    later = hand_over(site)
    with caplog.at_level(logging.ERROR):
        assert later.visit(lambda: (new.items, new.label)) == ([], "none")
    assert "secret" not in caplog.text
    assert "could not be migrated from version 1: KeyError" in caplog.text
    assert later.visit(lambda: session["basket.label"]) == "secret"


def test_threads_may_share_a_handle(site: Site) -> None:
    """One handle serves requests in several threads, each its own visitor."""
    cart, answers, together = cart_class()(), {}, threading.Barrier(4, timeout=30)

    def visitor(number: int) -> None:
        with site.app.test_request_context("/"):
            cart.items = [number]
            together.wait()
            answers[number] = cart.items

    threads = [threading.Thread(target=visitor, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: [number] for number in range(4)}


def test_another_session_interface_is_named(site: Site) -> None:
    """Where the application's sessions are not ours, that is said."""
    from flask.sessions import SecureCookieSessionInterface

    cart = cart_class()()
    site.app.session_interface = SecureCookieSessionInterface()
    with pytest.raises(ConfigError, match="session_interface"):
        site.visit(lambda: cart.note)
