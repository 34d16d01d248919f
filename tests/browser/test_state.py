"""What Python reads and writes of a browser's state, by whatever carrier it travels."""

from __future__ import annotations

import json
import random
import typing as t

import pytest
from flask import Flask, redirect

from flask_stateful import ConfigError, LocalState, StateClosed, field, signals
from flask_stateful.browser import wire
from flask_stateful.browser.registers import Register
from flask_stateful.errors import ValueTooLarge
from flask_stateful.serialization import url_safe
from flask_stateful.testing import FakeClock, FaultyStore
from tests.browser.support import NOW, OTHER_TAB, TAB, Prefs, Tab, Wizard, counted, encoded, island_of, make_app


@pytest.fixture
def store() -> FaultyStore:
    """A store that counts its calls."""
    return counted()


@pytest.fixture
def tab(store: FaultyStore) -> Tab:
    """A tab of a browser that was never here."""
    return Tab(make_app(store=store).test_client())


# JavaScript to Python


def test_n5_g2_a_value_in_the_outbox_is_read_by_the_very_next_request(tab: Tab, store: FaultyStore) -> None:
    """What JavaScript wrote travels in a cookie; to read it costs no store call on a first visit."""
    tab.outbox({"prefs.draft": ["hello", 0, NOW], "wizard.step": [2, 0, NOW]})
    assert tab.read("Prefs", "draft") == "hello"
    assert tab.read("Wizard", "step") == 2
    assert not store.calls


def test_n5_g2_a_value_in_the_header_is_read_by_that_request(tab: Tab) -> None:
    """What fetch sends along is read, without a cookie."""
    header = encoded(tab.push({"prefs.draft": ["hello", 0, NOW], "wizard.step": [3, 0, NOW]}))
    for model, name, value in (("Prefs", "draft", "hello"), ("Wizard", "step", 3)):
        answer = tab.client.get(f"/read/{model}/{name}", headers={"X-State": header})
        assert answer.json == {"value": value, "known": True}


def test_n5_a_value_that_the_endpoint_has_taken_is_read(tab: Tab) -> None:
    """After the background request nothing needs to travel any more."""
    answer = tab.sync({"prefs.draft": ["hello", 0, NOW], "wizard.answers": [{"a": "b"}, 0, NOW]})
    assert answer["a"].keys() == {"prefs.draft", "wizard.answers"}
    assert tab.read("Prefs", "draft") == "hello"
    assert tab.read("Wizard", "answers") == {"a": "b"}


def test_first_paint_is_made_from_mirror_cookies_without_a_store_call(tab: Tab, store: FaultyStore) -> None:
    """A theme that JavaScript kept is known to the first byte of the next page."""
    tab.set_cookie("prefs.theme", wire.encode_mirror(Register(b'"dark"', 0, NOW)))
    assert tab.read("Prefs", "theme") == "dark"
    assert not store.calls


def test_n5_what_is_sent_along_counts_for_a_mirrored_field_too(tab: Tab) -> None:
    """Fetch may bring a later write than the cookie that goes with it."""
    tab.set_cookie("prefs.theme", wire.encode_mirror(Register(b'"light"', 0, NOW)))
    header = encoded(tab.push({"prefs.theme": ["dark", 0, NOW + 1]}))
    assert tab.client.get("/read/Prefs/theme", headers={"X-State": header}).json == {"value": "dark", "known": True}


def test_a_mirrored_field_is_read_as_a_block_has_left_it(tab: Tab) -> None:
    """What was written counts at once, though the browser has yet to be given the cookie."""
    app, prefs = tab.client.application, Prefs()

    def view() -> str:
        with app.state.atomic():  # type: ignore[attr-defined]
            prefs.theme = "dark"
        return t.cast("str", prefs.theme)

    app.add_url_rule("/block", view_func=view)
    assert tab.client.get("/block").text == "dark"


def test_the_latest_of_several_tabs_counts(tab: Tab) -> None:
    """Tabs share their browser's local entries, and each has an outbox of its own."""
    tab.outbox({"prefs.draft": ["newer", 0, NOW + 2]})
    Tab(tab.client, OTHER_TAB).outbox({"prefs.draft": ["older", 0, NOW + 1]})
    assert tab.read("Prefs", "draft") == "newer"


def test_g8_each_tab_has_its_own_values(tab: Tab) -> None:
    """What one tab sends or Python writes for it, no other reads."""
    other = Tab(tab.client, OTHER_TAB)
    tab.sync({"wizard.step": [2, 0, NOW]})
    other.outbox({"wizard.step": [7, 0, NOW]})
    assert (tab.read("Wizard", "step"), other.read("Wizard", "step")) == (2, 7)
    tab.write("Wizard", "step", 5)
    assert (tab.read("Wizard", "step"), other.read("Wizard", "step")) == (5, 7)


def test_g8_the_header_tells_the_tab_exactly(tab: Tab) -> None:
    """On fetch it does not matter which tab has navigated last."""
    tab.sync({"wizard.step": [2, 0, NOW]})
    tab.set_cookie("_t", OTHER_TAB)
    answer = tab.client.get("/read/Wizard/step", headers={"X-State": encoded({"t": TAB})})
    assert answer.json == {"value": 2, "known": True}


def test_g6_a_delayed_older_push_does_not_overwrite(tab: Tab) -> None:
    """Whatever arrives late is known for what it is, and the browser is told what stands."""
    tab.sync({"prefs.draft": ["new", 0, NOW + 1]})
    answer = tab.sync({"prefs.draft": ["old", 0, NOW]})
    assert answer["p"]["prefs.draft"][0] == "new"
    assert tab.read("Prefs", "draft") == "new"


def test_storage_that_is_full_is_told(tab: Tab) -> None:
    """Python sees that values live in the page's memory only."""
    app = tab.client.application
    found: list[str] = []
    app.add_url_rule("/status", view_func=lambda: found.append(app.state.browser_status) or "")  # type: ignore[attr-defined]
    tab.client.get("/status")
    tab.outbox({}, q=1)
    tab.client.get("/status")
    assert found == ["ok", "memory"]


# Python to JavaScript


def test_g3_python_reads_what_it_wrote(tab: Tab) -> None:
    """By mirror cookie or by record, in the next request; also what was changed in place."""
    for name, value in (("theme", "dark"), ("draft", "py"), ("tags", ["a"])):
        tab.write("Prefs", name, value)
        assert tab.read("Prefs", name) == value
    tab.write("Prefs", "theme", ...)
    tab.write("Prefs", "draft", ...)
    assert tab.navigate("/read/Prefs/theme").json == {"value": "auto", "known": False}
    assert tab.navigate("/read/Prefs/draft").json == {"value": "", "known": False}


def test_g4_what_python_wrote_comes_with_every_page_until_it_was_taken(tab: Tab) -> None:
    """The island of the answer, and of each page after it while the cookie says that a patch is waiting."""
    first = island_of(tab.write("Prefs", "draft", "py"))
    again = island_of(tab.navigate("/plain"))
    assert first is not None
    assert again is not None
    value, revision, write = first["p"]["prefs.draft"]
    assert (value, write) == ("py", 0)
    assert again["p"] == first["p"]
    assert first["h"] == {"prefs.draft": revision}
    assert tab.cookie("_p") == str(revision)
    tab.client.delete_cookie(tab.prefix + "_p")
    assert island_of(tab.navigate("/plain")) is None


def test_g4_a_fetch_is_answered_with_what_python_wrote(tab: Tab) -> None:
    """The header of the answer has it."""
    answer = tab.write("Prefs", "draft", "py", headers={"X-State": encoded({"t": TAB})})
    message = json.loads(wire.from_base64url(answer.headers["X-State"]) or b"")
    assert message["p"]["prefs.draft"][0] == "py"


def test_g4_a_redirect_after_post_brings_it_with_the_next_page(tab: Tab) -> None:
    """The answer that has no page leaves a cookie; the page after it has the island."""

    @tab.client.application.post("/go")
    def go() -> t.Any:
        Prefs().draft = "py"
        Wizard().step = 4
        return redirect("/plain")

    tab.set_cookie("_t", TAB)
    island = island_of(tab.client.post("/go", follow_redirects=True))
    assert island is not None
    assert {name: register[0] for name, register in island["p"].items()} == {"prefs.draft": "py", "wizard.step": 4}


def test_a_tab_that_nobody_has_named_gets_an_id(tab: Tab) -> None:
    """The page that Python wrote in tells it to its scripts, and no other page takes it for its own."""
    island = island_of(tab.client.post("/write/Wizard/step", data=b"2"))
    assert island is not None
    assert island["new"] == 1
    assert tab.cookie("_t") is None
    assert Tab(tab.client, island["t"]).read("Wizard", "step") == 2


def test_a_tab_that_nobody_has_named_keeps_its_id_over_a_redirect(tab: Tab) -> None:
    """A cookie names it until a page has told its scripts."""

    @tab.client.application.post("/go")
    def go() -> t.Any:
        Wizard().step = 4
        return redirect("/plain")

    tab.client.post("/go")
    named = tab.cookie("_t")
    island = island_of(tab.client.get("/plain"))
    assert island is not None
    assert (named, island["new"]) == (island["t"] + ".new", 1)
    assert island["p"]["wizard.step"][0] == 4
    assert tab.cookie("_t") is None


def test_g5_pending_browser_writes_win_over_pythons_unless_said_otherwise() -> None:
    """Each conflict ends as its field says, in the request that brings it and at the endpoint."""

    class Notes(LocalState):
        mine: str = ""
        theirs: str = field("", conflict="server")
        both: list[str] = field(default_factory=list, conflict=lambda server, browser: server + browser)

    def settled(by: str) -> list[t.Any]:
        tab = Tab(make_app(Notes).test_client())
        for name, value in (("mine", "py"), ("theirs", "py"), ("both", ["py"])):
            tab.write("Notes", name, value)
        writes = {"notes.mine": ["js", 0, NOW], "notes.theirs": ["js", 0, NOW], "notes.both": [["js"], 0, NOW]}
        if by == "endpoint":
            tab.sync(writes)
        else:
            tab.outbox(writes)
        return [tab.read("Notes", name) for name in ("mine", "theirs", "both")]

    assert settled("endpoint") == settled("outbox") == ["js", "py", ["py", "js"]]


def test_a_conflict_function_that_fails_lets_the_browser_win(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, without the values."""

    class Notes(LocalState):
        both: str = field("", conflict=lambda server, browser: 1 / 0)

    tab = Tab(make_app(Notes).test_client())
    tab.write("Notes", "both", "python's secret")
    tab.sync({"notes.both": ["js", 0, NOW]})
    assert tab.read("Notes", "both") == "js"
    assert "conflict= of Notes.both failed (ZeroDivisionError)" in caplog.text
    assert "secret" not in caplog.text


def test_a_write_is_based_on_what_the_request_has_brought(tab: Tab) -> None:
    """The outbox's write is known to Python's, so that it loses when it arrives at last."""
    tab.outbox({"prefs.draft": ["js", 0, NOW]})
    tab.write("Prefs", "draft", "py")
    answer = tab.sync({"prefs.draft": ["js", 0, NOW]})
    assert answer["p"]["prefs.draft"][0::2] == ["py", NOW]
    assert tab.read("Prefs", "draft") == "py"


def test_two_overlapping_answers_the_one_processed_last_has_the_mirror(tab: Tab) -> None:
    """A mirror cookie is the register: of two answers that set it, the last one counts, for both sides."""
    first, second = tab.client, make_app(store=counted()).test_client()
    first.post("/write/Prefs/theme", data=b'"dark"')
    other = Tab(second)
    other.write("Prefs", "theme", "light")
    cookie = other.cookie("prefs.theme")
    assert cookie is not None
    tab.set_cookie("prefs.theme", cookie)
    assert tab.read("Prefs", "theme") == "light"


def test_g7_a_lost_replica_is_healed_by_the_next_exchange(tab: Tab, store: FaultyStore) -> None:
    """The browser is told what the server holds, offers the rest again, and it is read again."""
    answer = tab.sync({"prefs.draft": ["keep", 0, NOW]})
    revision, write = answer["a"]["prefs.draft"]
    for key in list(t.cast("t.Any", store.inner).scan("")):
        store.delete(key)
    assert tab.read("Prefs", "draft") == ""
    assert tab.sync({}, g=1)["h"] == {}
    assert "prefs.draft" in tab.sync({"prefs.draft": ["keep", revision, write]})["a"]
    assert tab.read("Prefs", "draft") == "keep"


def test_g1_after_any_exchange_both_sides_hold_one_value(tab: Tab) -> None:
    """Random writes of both sides, their pushes repeated and late, end in one value."""
    chance = random.Random(5)
    late: list[dict[str, t.Any]] = []
    entry: list[t.Any] = ["", 0, 0]
    for turn in range(150):
        if chance.random() < 0.5:
            entry = [f"js{turn}", entry[1], NOW + turn]
            late.append({"prefs.draft": entry})
        else:
            tab.write("Prefs", "draft", f"py{turn}")
        if late and chance.random() < 0.6:
            tab.sync(chance.choice(late))
    answer = tab.sync({"prefs.draft": entry}, g=1)
    if "prefs.draft" in answer.get("p", {}):
        entry = answer["p"]["prefs.draft"]
    assert tab.read("Prefs", "draft") == entry[0]


def test_an_expired_value_is_none(tab: Tab, clock: FakeClock) -> None:
    """After its ttl the default holds again; the browser is told how long it still lives."""
    tab.write("Prefs", "soon", "x")
    clock.advance(1800)
    assert tab.sync({}, g=1)["p"]["prefs.soon"][3] == pytest.approx(1800, abs=1)
    assert tab.read("Prefs", "soon") == "x"
    clock.advance(1801)
    assert tab.read("Prefs", "soon") == ""


def test_writes_after_saving_are_refused(tab: Tab) -> None:
    """In a streamed body nothing can be told to the browser any more."""
    app = tab.client.application
    errors: list[BaseException] = []

    @app.get("/late")
    def late() -> t.Any:
        from flask import Response, stream_with_context

        Prefs().draft  # noqa: B018

        def body() -> t.Iterator[str]:
            try:
                Prefs().draft = "late"
            except StateClosed as error:
                errors.append(error)
            yield "x"

        return Response(stream_with_context(body()))

    assert tab.client.get("/late").text == "x"
    assert "Prefs.draft was written to after" in str(errors[0])


def test_outside_of_a_request_there_is_no_browser(tab: Tab) -> None:
    """The error says what to do instead."""
    with tab.client.application.app_context(), pytest.raises(ConfigError, match="outside of a request"):
        Prefs().theme  # noqa: B018


def test_a_5xx_keeps_nothing(tab: Tab) -> None:
    """Neither cookie nor record nor island says anything of it."""
    answer = tab.write("Prefs", "draft", "py", query_string={"status": 500})
    tab.write("Prefs", "theme", "dark", query_string={"status": 500})
    assert island_of(answer) in (None, {"t": TAB, "u": "", "h": {}})
    assert tab.cookie("_p") is None
    assert (tab.read("Prefs", "draft"), tab.read("Prefs", "theme")) == ("", "auto")


def test_prefetch_confirms_nothing(tab: Tab) -> None:
    """A page that may never be seen leaves the outbox, and what is waiting."""
    tab.write("Prefs", "draft", "py")
    waiting = tab.cookie("_p")
    tab.navigate("/plain", headers={"Sec-Purpose": "prefetch;prerender"})
    assert tab.cookie("_p") == waiting


# What is malformed


def malformed(chance: random.Random) -> str:
    """Return a carrier that is none."""
    push = {"t": TAB, "p": {"prefs.draft": ["x", 0, NOW]}}
    return chance.choice(
        [
            "".join(chance.choices("abcXYZ019-_=.%~+/", k=chance.randrange(1, 60))),
            encoded(push)[: chance.randrange(1, 40)],
            encoded({**push, "t": chance.choice(["", "x", 5, None, "<script>"])}),
            encoded({**push, "p": chance.choice([5, [], {"prefs.draft": 1}, {"prefs.draft": [1]}])}),
            encoded({"t": TAB, "p": {"prefs.draft": [chance.choice([5, None, [], {}]), 0, NOW]}}),
            encoded([[]] * chance.randrange(9)),
            url_safe(b"[" * chance.randrange(1, 800)),
            url_safe(bytes(chance.choices(range(256), k=chance.randrange(1, 80)))),
            "A" * chance.randrange(3600, 3900),
        ]
    )


@pytest.mark.parametrize("carrier", ["outbox", "mirror", "header", "browser", "tab", "owner"])
def test_l4_thousands_of_malformed_carriers_are_ignored(
    tab: Tab, store: FaultyStore, carrier: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Status 200, defaults, at most one log line without the value; a forged browser id costs no store call."""
    chance = random.Random(7)
    names = {"outbox": f"_q.{TAB}", "mirror": "prefs.theme", "browser": "_b", "tab": "_t", "owner": "_u"}
    logged = 0
    for _ in range(700):
        caplog.clear()
        text = malformed(chance)
        headers = {"X-State": text} if carrier == "header" else {"Cookie": f"{tab.prefix}{names[carrier]}={text}"}
        with tab.client.application.test_client(use_cookies=False) as client:
            for name in ("theme", "draft"):
                answer = client.get(f"/read/Prefs/{name}", headers=headers)
                assert answer.status_code == 200
                assert t.cast("t.Any", answer.json)["known"] is False
                assert len(caplog.records) <= 1
                assert len(text) < 9 or text not in caplog.text
                logged += len(caplog.records)
                caplog.clear()
    assert not store.calls
    assert logged > 300 or carrier in ("tab", "owner")


def test_a_value_that_does_not_fit_is_dropped_logged_and_signalled(tab: Tab, caplog: pytest.LogCaptureFixture) -> None:
    """The browser is told what stands, and no log line has the value."""
    names: list[str] = []
    app = tab.client.application

    def heard(sender: Flask, name: str, reason: str) -> None:
        names.append(f"{name} {reason}")

    with signals.state_invalid.connected_to(heard, sender=app):
        answer = tab.sync({"wizard.step": ["secret", 0, NOW]})
    assert len(answer["p"]["wizard.step"]) == 2
    assert names == ["wizard.step type"]
    assert "wizard.step" in caplog.text
    assert "secret" not in caplog.text
    assert tab.read("Wizard", "step") == 1


def test_unknown_names_are_dropped(tab: Tab) -> None:
    """Nothing is stored under a name that nobody has declared."""
    assert tab.sync({"prefs.nothing": ["x", 0, NOW], "x": ["y", 0, NOW]}, g=1)["h"] == {}


def test_each_change_is_signalled(tab: Tab) -> None:
    """With the field's name and who wrote it."""
    heard: list[tuple[str, str]] = []

    def note(sender: Flask, name: str, by: str) -> None:
        heard.append((name, by))

    with signals.state_changed.connected_to(note, sender=tab.client.application):
        tab.sync({"prefs.draft": ["js", 0, NOW]})
        tab.write("Prefs", "draft", "py")
        tab.write("Prefs", "theme", "dark")
    assert heard == [("prefs.draft", "browser"), ("prefs.draft", "server"), ("prefs.theme", "server")]


def test_a_browser_may_hold_64_kib_on_the_server(tab: Tab) -> None:
    """What a push has beyond that is refused and told; what Python has is an error that names the field."""
    tab.sync({"prefs.draft": ["x" * 40_000, 0, NOW]})
    answer = tab.sync({"prefs.tags": [["y" * 40_000], 0, NOW]})
    assert len(answer["p"]["prefs.tags"]) == 2
    with pytest.raises(ValueTooLarge, match=r"65,536 are allowed; prefs.draft takes most of it"):
        tab.write("Prefs", "tags", ["z" * 39_000])


# Stores, applications, names


def test_store_down_pages_are_made_from_defaults_and_carriers(tab: Tab, store: FaultyStore) -> None:
    """What the request brings is read; a page that writes is answered 503, and the endpoint, too."""
    tab.sync({"prefs.draft": ["kept", 0, NOW]})
    store.fail("unavailable")
    tab.outbox({"prefs.tags": [["js"], 0, NOW]})
    assert tab.read("Prefs", "draft") == ""
    assert tab.read("Prefs", "tags") == ["js"]
    assert tab.write("Prefs", "draft", "py").status_code == 503
    assert tab.send({"prefs.draft": ["js", 0, NOW + 5]}).status_code == 503
    store.mend()
    assert tab.read("Prefs", "draft") == "kept"


def test_several_applications_do_not_read_each_others_cookies() -> None:
    """Their namespaces keep them apart."""
    one, other = (Tab(make_app(name=name).test_client()) for name in ("one", "other"))
    one.write("Prefs", "theme", "dark")
    cookie = one.cookie("prefs.theme")
    assert cookie is not None
    other.client.set_cookie(one.prefix + "prefs.theme", cookie)
    assert other.read("Prefs", "theme") == "auto"


def test_on_https_names_have_their_prefixes_and_only_those_are_read() -> None:
    """Scripts write __Host-, nobody but us __Host-Http-; a cookie without is nobody's."""
    tab = Tab(make_app().test_client(), https=True)
    answer = tab.write("Prefs", "draft", "py")
    cookies = answer.headers.getlist("Set-Cookie")
    assert {cookie.partition("=")[0] for cookie in cookies} == {"__Host-Http-fs.shop._b", "__Host-fs.shop._p"}
    assert all("; Secure" in cookie and "; Path=/" in cookie and "SameSite=Lax" in cookie for cookie in cookies)
    assert [("HttpOnly" in cookie) for cookie in cookies] == ["_b" in cookie for cookie in cookies]
    tab.client.set_cookie("fs.shop.prefs.theme", wire.encode_mirror(Register(b'"dark"', 1, 1)))
    assert tab.read("Prefs", "theme") == "auto"
    assert tab.read("Prefs", "draft") == "py"


def test_a_browser_id_outlives_a_rotation_of_keys() -> None:
    """A fallback key still recognises it, and it is signed anew when something is written."""
    store = counted()
    old = Tab(make_app(store=store).test_client())
    old.write("Prefs", "draft", "py")
    cookie = old.cookie("_b")
    new = Tab(make_app(store=store, secret="y" * 32, SECRET_KEY_FALLBACKS=["x" * 32]).test_client())
    assert cookie is not None
    new.set_cookie("_b", cookie)
    assert new.read("Prefs", "draft") == "py"
    new.write("Prefs", "draft", "py2")
    assert new.cookie("_b") != cookie


def test_l5_what_is_read_varies_by_cookie_and_what_is_written_is_private(tab: Tab) -> None:
    """Headers keep caches from giving one visitor's page to another."""
    read, written = tab.navigate("/read/Look/dense"), tab.write("Look", "dense", True)
    assert (read.headers["Vary"], read.headers.get("Cache-Control")) == ("Cookie", None)
    assert (written.headers["Vary"], written.headers["Cache-Control"]) == ("Cookie", "private")


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        (lambda: field("", mirror=True), "max_bytes=128"),
        (lambda: field("", mirror=True, max_bytes=100, conflict="server"), "remove mirror=True"),
        (lambda: field("", max_bytes=70_000), "65,536"),
    ],
)
def test_what_cannot_be_kept_is_refused_at_set_up(declaration: t.Any, message: str) -> None:
    """A field that does not fit its place is a ConfigError with what to write."""

    class Notes(LocalState):
        text: str = declaration()

    with pytest.raises(ConfigError, match=message):
        make_app(Notes).test_client().get("/_state/client.js")


def test_mirrors_of_one_application_have_a_kibibyte() -> None:
    """Small fields are mirrored as they are declared, until it is used up; the others have a record."""

    class Many(LocalState):
        __annotations__ = {f"f{i}": bool for i in range(20)}
        locals().update({f"f{i}": False for i in range(20)})

    tab = Tab(make_app(Many).test_client())
    for i in range(20):
        tab.write("Many", f"f{i}", True)
    mirrored = [name for name in (f"many.f{i}" for i in range(20)) if tab.cookie(name)]
    assert 5 <= len(mirrored) < 20
    assert all(tab.read("Many", f"f{i}") for i in range(20))


def test_shared_state_is_read(tab: Tab) -> None:
    """What belongs to the browser has a record of its own."""
    tab.write("Look", "layout", "wide")
    tab.write("Prefs", "draft", "py")
    assert (tab.read("Look", "layout"), tab.read("Prefs", "draft")) == ("wide", "py")
