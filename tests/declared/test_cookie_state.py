"""Cookie state: one sealed cookie for each class."""

from __future__ import annotations

import logging
import typing as t
from datetime import timedelta

import pytest

from flask_stateful import CookieState, field, migrate, signals
from flask_stateful.errors import CookieTooLarge, StateClosed

from .conftest import Site


def consent_class() -> type[t.Any]:
    class Consent(CookieState, max_age=timedelta(days=180)):
        analytics: bool = False
        seen: list[str] = []

    return Consent


def cookie_names(site: Site) -> list[str]:
    """Return the names of the cookies that the last response set."""
    return [line.partition("=")[0] for line in site.response.headers.getlist("Set-Cookie")]


def test_a_class_is_one_sealed_cookie(site: Site) -> None:
    """What was assigned comes back in the next request, in one HttpOnly cookie that shows nothing."""
    consent = consent_class()()
    site.visit(lambda: (setattr(consent, "analytics", True), setattr(consent, "seen", ["secret-tour"])))
    assert cookie_names(site) == ["consent"]
    line = site.response.headers["Set-Cookie"]
    assert "Max-Age=15552000" in line
    assert "HttpOnly" in line
    assert "secret" not in line
    assert site.visit(lambda: (consent.analytics, consent.seen)) == (True, ["secret-tour"])


def test_reading_writes_nothing(site: Site) -> None:
    """A request that only reads sets no cookie, and says that its answer depends on one."""
    consent = consent_class()()
    assert site.visit(lambda: (consent.seen, consent.analytics)) == ([], False)
    assert cookie_names(site) == []
    assert "Cookie" in site.response.headers["Vary"]


def test_nested_changes_are_written(site: Site) -> None:
    """A list that was appended to is written when the response is saved, also a default."""
    consent = consent_class()()
    site.visit(lambda: consent.seen.append("a"))
    site.visit(lambda: consent.seen.append("b"))
    assert site.visit(lambda: consent.seen) == ["a", "b"]


def test_what_is_too_large_is_refused_where_it_is_assigned(site: Site) -> None:
    """A value beyond a cookie's 4,096 octets is an error at assignment, and nothing has changed."""
    consent = consent_class()()

    def view() -> t.Any:
        consent.seen = ["x"]
        with pytest.raises(CookieTooLarge):
            consent.seen = ["x" * 5000]
        return consent.seen

    assert site.visit(view) == ["x"]
    assert site.visit(lambda: consent.seen) == ["x"]


def test_overflow_spills(site: Site) -> None:
    """A class that says overflow="spill" keeps what does not fit in the store."""

    class Draft(CookieState, overflow="spill"):
        text: str = ""

    draft = Draft()
    site.visit(lambda: setattr(draft, "text", "x" * 9000))
    assert site.visit(lambda: len(draft.text)) == 9000


def test_reset_of_all_removes_the_cookie(site: Site) -> None:
    """A cookie whose fields all have their defaults again is removed."""
    consent = consent_class()()
    site.visit(lambda: setattr(consent, "analytics", True))
    site.visit(lambda: site.state.reset(consent))
    assert "Max-Age=0" in site.response.headers["Set-Cookie"]
    assert site.visit(lambda: site.state.known(consent, "analytics")) is False


def test_a_failed_request_sets_no_cookie(site: Site) -> None:
    """A response of 5xx discards what was assigned."""
    consent = consent_class()()
    site.visit(lambda: (setattr(consent, "analytics", True), 500)[-1])
    assert cookie_names(site) == []
    assert site.visit(lambda: consent.analytics) is False


@pytest.mark.parametrize("junk", ["", "x", "%00", "a" * 4000, '"\\377"', "AAAA" * 20])
def test_a_forged_cookie_reads_as_defaults(site: Site, junk: str) -> None:
    """Whatever the browser sends, a view reads defaults and no exception."""
    consent = consent_class()()
    site.browser.set_cookie("consent", junk)
    assert site.visit(lambda: (consent.analytics, consent.seen)) == (False, [])


@pytest.mark.parametrize("value", ["text", 7, [], {"analytics": 1}, {1: b"x"}, {"analytics": b"\xc1"}, {"x": b"\xc0"}])
def test_a_genuine_cookie_of_another_make_reads_as_defaults(site: Site, value: t.Any) -> None:
    """A sealed cookie that holds something else under the name reads as defaults."""
    consent = consent_class()()
    site.visit(lambda: site.state.cookies.set("consent", value))
    assert site.visit(lambda: (consent.analytics, consent.seen)) == (False, [])


def test_a_misfit_is_signalled_without_its_value(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A field whose kept value does not fit is logged and signalled by name, the other fields stay."""

    class Consent(CookieState, name="consent"):
        analytics: str = "no"
        seen: list[str] = []

    other = Site(store=site.app.extensions["stateful"].settings.default_store)
    old, new, heard = consent_class()(), Consent(), list[t.Any]()
    site.visit(lambda: (setattr(old, "analytics", True), setattr(old, "seen", ["kept"])))
    cookie = site.browser.get_cookie("consent")
    assert cookie is not None
    other.browser.set_cookie("consent", cookie.value)

    def listen(sender: object, **details: t.Any) -> None:
        heard.append(details)

    with signals.state_invalid.connected_to(listen), caplog.at_level(logging.WARNING):
        assert other.visit(lambda: (new.analytics, new.seen)) == ("no", ["kept"])
    assert heard == [{"name": "consent.analytics", "reason": "type"}]


def test_migration_moves_to_the_new_cookie(site: Site) -> None:
    """Version 2 reads what version 1 has left, and once it writes, the old cookie goes."""

    class Old(CookieState, name="consent"):
        stats: bool = False

    class New(CookieState, name="consent", version=2):
        analytics: bool = False
        ads: bool = False

    @migrate(New, 1)
    def renamed(old: dict[str, t.Any]) -> dict[str, t.Any]:
        return {"analytics": old["stats"]}

    store = site.app.extensions["stateful"].settings.default_store
    later, old, new = Site(store=store), Old(), New()
    site.visit(lambda: setattr(old, "stats", True))
    cookie = site.browser.get_cookie("consent")
    assert cookie is not None
    later.browser.set_cookie("consent", cookie.value)
    assert later.visit(lambda: (new.analytics, new.ads)) == (True, False)
    assert cookie_names(later) == []
    later.visit(lambda: setattr(new, "ads", True))
    assert sorted(cookie_names(later)) == ["consent", "consent~2"]
    assert later.visit(lambda: (new.analytics, new.ads)) == (True, True)
    assert later.browser.get_cookie("consent") is None


def test_changes_are_signalled(site: Site) -> None:
    """state_changed names what the response changes, once for each field."""
    consent, heard = consent_class()(), list[str]()

    def listen(sender: object, name: str) -> None:
        heard.append(name)

    with signals.state_changed.connected_to(listen):
        site.visit(lambda: (setattr(consent, "analytics", True), consent.seen.append("a")))
        site.visit(lambda: setattr(consent, "analytics", True))
    assert heard == ["consent.analytics", "consent.seen"]


def test_writing_after_the_response_is_refused(site: Site) -> None:
    """What is written once the response has been saved is an error."""
    consent = consent_class()()
    with site.app.test_request_context("/"):
        assert consent.analytics is False
        site.app.process_response(site.app.response_class())
        with pytest.raises(StateClosed, match=r"Consent\.analytics"):
            consent.analytics = True


def test_no_browser_keeps_a_cookie_for_longer() -> None:
    """A max_age of more than 400 days is a TypeError where the class is defined."""
    with pytest.raises(TypeError, match="400 days"):

        class Long(CookieState, max_age=timedelta(days=401)):
            x: int = field(0)
