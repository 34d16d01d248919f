"""What a visitor does, and what Python and JavaScript see then: each told once, for every kind of browser."""

from __future__ import annotations

import json
import typing as t

from tests.browser.scenarios.driver import Browser, Tab, World

Story = t.Callable[[World], None]

#: All stories, in the order in which they are told here.
STORIES: list[Story] = []

DAY = 86_400.0


def story(function: Story) -> Story:
    """Add a story to the list."""
    STORIES.append(function)
    return function


def opened(browser: Browser, path: str = "/") -> Tab:
    """Return a new tab with a page."""
    tab = browser.tab()
    tab.open(path)
    return tab


def assign(tab: Tab, **values: t.Any) -> None:
    """Assign a field of each kind: mirrored, with a replica, of the tab."""
    tab.set("local.prefs.theme", values.get("theme", "dark"))
    tab.set("local.prefs.draft", values.get("draft", "a draft"))
    tab.set("tab.wizard.step", values.get("step", 2))


def python_reads(tab: Tab, **values: t.Any) -> None:
    """Assert what Python has read for the page."""
    seen = tab.seen()
    found = (seen["prefs.theme"], seen["prefs.draft"], seen["wizard.step"])
    assert found == (values.get("theme", "dark"), values.get("draft", "a draft"), values.get("step", 2))


def javascript_reads(tab: Tab, **values: t.Any) -> None:
    """Assert what JavaScript reads in the page."""
    found = (tab.get("local.prefs.theme"), tab.get("local.prefs.draft"), tab.get("tab.wizard.step"))
    assert found == (values.get("theme", "dark"), values.get("draft", "a draft"), values.get("step", 2))


# Whatever comes next


@story
def write_then_click(world: World) -> None:
    """What JavaScript has assigned, Python reads for the page that the next click opens."""
    tab = opened(world.browser())
    assign(tab)
    tab.open("/")
    python_reads(tab)
    javascript_reads(tab)


@story
def write_then_form(world: World) -> None:
    """The same holds for a form, whose answer is a redirect."""
    tab = opened(world.browser())
    assign(tab)
    tab.submit("/write", name="prefs.title", value='"new"')
    python_reads(tab)
    assert tab.seen()["prefs.title"] == "new"


@story
def write_then_reload(world: World) -> None:
    """The same holds for a reload."""
    tab = opened(world.browser())
    assign(tab)
    tab.reload()
    python_reads(tab)


@story
def deleted_fields_have_their_defaults(world: World) -> None:
    """What JavaScript deletes has its default, there and in Python."""
    tab = opened(world.browser())
    assign(tab)
    tab.flush()
    for name in ("local.prefs.theme", "local.prefs.draft", "tab.wizard.step"):
        tab.delete(name)
    javascript_reads(tab, theme="auto", draft="", step=1)
    tab.open("/")
    python_reads(tab, theme="auto", draft="", step=1)


@story
def redirect_after_post(world: World) -> None:
    """What Python has written before a redirect is there in the next page, which itself reads nothing."""
    tab = opened(world.browser())
    for name, value in {"prefs.theme": "dark", "prefs.draft": "a draft", "wizard.step": 2}.items():
        tab.submit("/write", name=name, value=json.dumps(value), then="/blind")
    javascript_reads(tab)
    tab.open("/")
    python_reads(tab)


@story
def fetch_carries_both_ways(world: World) -> None:
    """A fetch carries what JavaScript has assigned, and its answer what Python has written."""
    tab = opened(world.browser())
    assign(tab)
    told = tab.fetch({"prefs.title": "from Python", "wizard.answers": {"color": "red"}})
    assert (told["prefs.theme"], told["prefs.draft"], told["wizard.step"]) == ("dark", "a draft", 2)
    assert tab.get("local.prefs.title") == "from Python"
    assert tab.get("tab.wizard.answers") == {"color": "red"}


# Tabs


@story
def two_tabs(world: World) -> None:
    """Two tabs of one browser share what is local: each reads what the other has assigned, and so does Python."""
    browser = world.browser()
    one, other = opened(browser), opened(browser)
    one.set("local.prefs.draft", "by one")
    assert other.get("local.prefs.draft") == "by one"
    other.set("local.prefs.theme", "dark")
    one.open("/")
    assert (one.seen()["prefs.theme"], one.seen()["prefs.draft"]) == ("dark", "by one")


@story
def tabs_are_kept_apart(world: World) -> None:
    """What is a tab's own, no other tab reads, in JavaScript and in Python."""
    browser = world.browser()
    one = opened(browser)
    one.set("tab.wizard.step", 2)
    one.open("/")
    other = opened(browser)
    assert (other.get("tab.wizard.step"), other.seen()["wizard.step"]) == (1, 1)
    other.set("tab.wizard.step", 3)
    other.open("/")
    one.open("/")
    assert (one.seen()["wizard.step"], other.seen()["wizard.step"]) == (2, 3)
    assert (one.get("tab.wizard.step"), other.get("tab.wizard.step")) == (2, 3)


@story
def duplicated_tab(world: World) -> None:
    """A duplicated tab begins with what the first one holds; then each has its own."""
    tab = opened(world.browser())
    tab.set("tab.wizard.step", 2)
    tab.flush()
    copy = tab.duplicate()
    assert copy.get("tab.wizard.step") == 2
    copy.set("tab.wizard.step", 3)
    copy.open("/")
    tab.open("/")
    assert (tab.seen()["wizard.step"], copy.seen()["wizard.step"]) == (2, 3)


@story
def closed_tab(world: World) -> None:
    """What a closed tab had is gone; what is local, the next tab reads."""
    browser = world.browser()
    tab = opened(browser)
    assign(tab)
    tab.flush()
    tab.close()
    other = opened(browser)
    python_reads(other, step=1)
    javascript_reads(other, step=1)


@story
def back_button_with_stale_html(world: World) -> None:
    """A page from history, whose island is old, takes nothing back."""
    tab = opened(world.browser())
    tab.submit("/write", name="prefs.draft", value='"old"')
    tab.open("/")
    tab.set("local.prefs.draft", "new")
    tab.set("tab.wizard.step", 2)
    tab.flush()
    tab.back()
    assert tab.seen()["prefs.draft"] == "old"
    assert (tab.get("local.prefs.draft"), tab.get("tab.wizard.step")) == ("new", 2)
    tab.open("/")
    assert (tab.seen()["prefs.draft"], tab.seen()["wizard.step"]) == ("new", 2)


# Failures


@story
def lost_replica_heals(world: World) -> None:
    """After the store has lost everything, Python reads it again once the browser has been asked."""
    tab = opened(world.browser())
    assign(tab)
    tab.flush()
    world.deploy(wipe=True)
    tab.submit("/write", name="prefs.title", value='"after"')
    tab.flush()
    tab.open("/")
    python_reads(tab)
    assert tab.seen()["prefs.title"] == "after"


@story
def answer_lost_then_python_writes(world: World) -> None:
    """A push whose answer is lost and that is sent again does not undo what Python has written meanwhile."""
    browser = world.browser()
    tab = opened(browser)
    tab.flush()
    browser.lose_answer()
    tab.set("local.prefs.draft", "by JavaScript")
    assert tab.flush_fails()
    tab.ask({"prefs.draft": "by Python"})
    tab.flush()
    tab.open("/")
    assert tab.seen()["prefs.draft"] == "by Python"
    assert tab.get("local.prefs.draft") == "by Python"


@story
def offline_and_back(world: World) -> None:
    """What is assigned offline is pending until the browser is connected again."""
    browser = world.browser()
    tab = opened(browser)
    tab.flush()
    browser.offline(True)
    assign(tab)
    assert tab.flush_fails()
    javascript_reads(tab)
    browser.offline(False)
    tab.flush()
    tab.open("/")
    python_reads(tab)


@story
def conflicts(world: World) -> None:
    """A write that did not know Python's wins, loses, or is joined with it, as the field says."""
    tab = opened(world.browser())
    tab.flush()
    tab.ask({"prefs.draft": "Python", "prefs.title": "Python", "prefs.tags": ["Python"]})
    tab.set("local.prefs.draft", "JavaScript")
    tab.set("local.prefs.title", "JavaScript")
    tab.set("local.prefs.tags", ["JavaScript"])
    tab.flush()
    values = {"prefs.draft": "JavaScript", "prefs.title": "Python", "prefs.tags": ["JavaScript", "Python"]}
    assert {name: tab.get(f"local.{name}") for name in values} == values
    tab.open("/")
    assert values.items() <= tab.seen().items()


@story
def large_value(world: World) -> None:
    """60 KB travel in a body of their own, and reach Python."""
    tab = opened(world.browser())
    tab.set("local.prefs.draft", "x" * 60_000)
    tab.flush()
    tab.open("/")
    assert tab.seen()["prefs.draft"] == "x" * 60_000


@story
def more_than_an_outbox_holds(world: World) -> None:
    """What the outbox has no room for, Python reads once the browser has sent it."""
    tab = opened(world.browser())
    tab.set("local.prefs.draft", "y" * 5_000)
    tab.set("local.prefs.title", "short")
    tab.flush()
    tab.open("/")
    assert (tab.seen()["prefs.draft"], tab.seen()["prefs.title"]) == ("y" * 5_000, "short")


@story
def time_to_live(world: World) -> None:
    """A value with a lifetime has an expiry in the browser, and is read by both until then."""
    tab = opened(world.browser())
    tab.set("local.prefs.soon", "now")
    tab.flush()
    item = json.loads(tab.stored("local.prefs.soon"))
    assert item["e"] > 0
    tab.open("/")
    assert tab.seen()["prefs.soon"] == "now"
    tab.plant("local.prefs.soon", json.dumps({**item, "e": 1}))
    assert tab.get("local.prefs.soon") == ""


@story
def wrong_clock(world: World) -> None:
    """A browser whose clock is a day behind, or ahead, loses nothing, whoever writes last."""
    for offset in (-DAY, DAY):
        tab = opened(world.browser(clock=offset))
        assign(tab)
        tab.open("/")
        python_reads(tab)
        tab.submit("/write", name="prefs.draft", value='"by Python"', then="/blind")
        assert tab.get("local.prefs.draft") == "by Python"
        tab.set("local.prefs.draft", "by JavaScript")
        tab.open("/")
        assert tab.seen()["prefs.draft"] == "by JavaScript"


# Browsers that lack something


@story
def without_cookies(world: World) -> None:
    """Without cookies pages are made from defaults, and JavaScript keeps what it has assigned."""
    tab = opened(world.browser(cookies=False))
    tab.set("local.prefs.title", "a title")
    # The server takes each push for that of another browser; that must come to an end.
    tab.flush()
    assign(tab)
    tab.flush()
    javascript_reads(tab)
    tab.open("/")
    python_reads(tab, theme="auto", draft="", step=1)
    javascript_reads(tab)


@story
def without_storage(world: World) -> None:
    """Without web storage, values outlive their page with the server's help; Python is told."""
    tab = opened(world.browser(storage=False))
    assign(tab)
    tab.flush()
    assert tab.fetch()["status"] == "memory"
    tab.open("/")
    tab.flush()
    assert (tab.get("local.prefs.theme"), tab.get("local.prefs.draft")) == ("dark", "a draft")
    assert tab.seen()["prefs.draft"] == "a draft"


@story
def without_javascript(world: World) -> None:
    """Without JavaScript, forms and redirects work, and Python keeps what it writes."""
    tab = opened(world.browser(javascript=False))
    tab.submit("/write", name="prefs.theme", value='"dark"')
    tab.submit("/write", name="prefs.draft", value='"a draft"')
    tab.open("/")
    assert (tab.seen()["prefs.theme"], tab.seen()["prefs.draft"]) == ("dark", "a draft")


# Users, consent, seals


@story
def another_user(world: World) -> None:
    """What belonged to one user, the next does not find, and it comes back to nobody; what is shared stays."""
    tab = opened(world.browser())
    tab.submit("/login", user="ada")
    assign(tab)
    tab.set("local.look.layout", "wide")
    tab.flush()
    tab.submit("/logout")
    tab.submit("/login", user="grace")
    python_reads(tab, theme="auto", draft="", step=1)
    javascript_reads(tab, theme="auto", draft="", step=1)
    assert (tab.seen()["user"], tab.seen()["look.layout"]) == ("grace", "wide")
    assert tab.get("local.look.layout") == "wide"


@story
def logout(world: World) -> None:
    """Signing out leaves nothing of the user in the browser."""
    tab = opened(world.browser())
    tab.submit("/login", user="ada")
    assign(tab, draft="a secret")
    tab.flush()
    tab.submit("/logout")
    python_reads(tab, theme="auto", draft="", step=1)
    javascript_reads(tab, theme="auto", draft="", step=1)
    assert "a secret" not in tab.stored("local.prefs.draft")


@story
def signing_in_keeps_what_nobody_had(world: World) -> None:
    """What was assigned before signing in comes along."""
    tab = opened(world.browser())
    assign(tab)
    tab.submit("/login", user="ada")
    python_reads(tab)
    javascript_reads(tab)


@story
def consent(world: World) -> None:
    """Without consent values live in their page; with it they are kept, and go when it is withdrawn."""
    browser = world.browser()
    tab = opened(browser)
    tab.set("local.visits.count", 1)
    tab.open("/")
    assert (tab.seen()["visits.count"], tab.get("local.visits.count"), tab.stored("local.visits.count")) == (0, 0, "")
    tab.submit("/consent", answer="yes")
    tab.set("local.visits.count", 2)
    tab.set("local.visits.pages", ["/"])
    tab.open("/")
    assert (tab.seen()["visits.count"], tab.seen()["visits.pages"]) == (2, ["/"])
    tab.flush()
    tab.submit("/consent", answer="no")
    assert (tab.seen()["visits.count"], tab.seen()["visits.pages"]) == (0, [])
    assert (tab.stored("local.visits.count"), tab.stored("local.visits.pages")) == ("", "")
    assert not [name for name in browser.cookies() if "visits" in name]


@story
def sealed_fields(world: World) -> None:
    """A sealed field is the server's to read: the page holds a token, which opens in no other field or browser."""
    tab = opened(world.browser())
    tab.submit("/write", name="prefs.coupon", value='{"percent": 17}')
    assert tab.seen()["prefs.coupon"] == {"percent": 17}
    item = tab.stored("local.prefs.coupon")
    assert item
    assert "percent" not in item
    stranger = opened(world.browser())
    planted = json.dumps({**json.loads(item), "d": 1})
    tab.plant("local.prefs.bonus", planted)
    stranger.plant("local.prefs.coupon", planted)
    for each in (tab, stranger):
        each.open("/blind")
        each.open("/")
    assert (tab.seen()["prefs.bonus"], tab.seen()["prefs.coupon"]) == (None, {"percent": 17})
    assert stranger.seen()["prefs.coupon"] is None


# Deployments


@story
def another_version(world: World) -> None:
    """A new version of a class has what its migration makes of the old, and of what the old one writes once more."""
    tab = opened(world.browser())
    tab.set("local.note.text", "two words")
    tab.flush()
    world.deploy(version=2)
    tab.open("/")
    assert tab.seen()["note.words"] == ["two", "words"]
    tab.open("/")
    assert tab.get("local.note.words") == ["two", "words"]
    tab.set("local.note.words", ["three"])
    tab.flush()
    world.deploy(version=1)
    tab.open("/")
    world.deploy(version=2)
    tab.open("/")
    assert tab.seen()["note.words"] == ["three"]
    world.deploy(version=1)
    tab.open("/")
    tab.set("local.note.text", "back again")
    tab.open("/")
    assert tab.seen()["note.text"] == "back again"
    world.deploy(version=2)
    tab.open("/")
    assert tab.seen()["note.words"] == ["back", "again"]


@story
def another_version_and_a_lost_replica(world: World) -> None:
    """What only the browser still holds of an old version is migrated as well."""
    tab = opened(world.browser())
    tab.set("local.note.text", "two words")
    tab.flush()
    world.deploy(version=2, wipe=True)
    tab.open("/blind")
    tab.flush()
    tab.open("/")
    assert tab.seen()["note.words"] == ["two", "words"]


@story
def key_rotation(world: World) -> None:
    """With another key, and the old one as a fallback, all is there: cookies, seals, the session, the browser."""
    tab = opened(world.browser())
    tab.submit("/login", user="ada")
    for name, value in {"prefs.coupon": {"percent": 17}, "notice.seen": 3, "basket.items": ["tea"]}.items():
        tab.submit("/write", name=name, value=json.dumps(value))
    assign(tab)
    tab.flush()
    world.deploy(secrets=["t" * 32, "s" * 32])
    for _ in range(2):
        tab.open("/")
        seen = tab.seen()
        found = (seen["user"], seen["prefs.coupon"], seen["notice.seen"], seen["basket.items"])
        assert found == ("ada", {"percent": 17}, 3, ["tea"])
        python_reads(tab)
        javascript_reads(tab)


@story
def another_key(world: World) -> None:
    """With another key alone, nothing sealed opens; the browser still offers what it holds itself."""
    tab = opened(world.browser())
    tab.submit("/write", name="prefs.coupon", value='{"percent": 17}')
    assign(tab)
    tab.flush()
    world.deploy(secrets=["u" * 32])
    tab.open("/")
    assert tab.seen()["prefs.coupon"] is None
    tab.submit("/write", name="prefs.title", value='"after"')
    tab.flush()
    tab.open("/")
    assert tab.seen()["prefs.title"] == "after"
    python_reads(tab)
