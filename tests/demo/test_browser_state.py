"""What fails elsewhere, by name: state that the browser and Python share, in Chromium, against the shop as served."""

from __future__ import annotations

import base64
import json
import re
import typing as t
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, Playwright, Response, Route, expect

from tests.chromium import ARGUMENTS, NewVisitor
from tests.demo.visitor import Shop, until
from tests.services import Launch

#: Note each theme that the page has while it loads, and the colour of the text in each frame that is painted.
WATCH_THEME = """
window.themes = [];
window.inks = [];
const note = () => { if (document.documentElement) themes.push(document.documentElement.dataset.theme ?? ""); };
new MutationObserver(note).observe(document, {attributes: true, childList: true, subtree: true});
const frame = () => {
    if (document.styleSheets.length && document.body) inks.push(getComputedStyle(document.body).color);
    requestAnimationFrame(frame);
};
requestAnimationFrame(frame);
"""

#: The colour of a page's text, by theme.
INK = {"light": "rgb(34, 38, 31)", "dark": "rgb(236, 232, 221)"}

FILL = """
() => {
    let text = "x".repeat(1 << 20), number = 0;
    while (text) {
        try { localStorage.setItem(`full${number++}`, text); } catch { text = text.slice(text.length / 2 + 1); }
    }
}
"""


def opened(context: BrowserContext, path: str = "/things/flask") -> Page:
    """Open a page in a new tab, and wait for its script."""
    page = context.new_page()
    page.goto(path)
    run(page, "await flush()")
    return page


def run(page: Page, body: str, *values: t.Any) -> t.Any:
    """Run statements with the client module's names."""
    names = "'use strict'; const {local, tab, flush, status} = module;"
    return page.evaluate(f"values => import('/_state/client.js').then(async module => {{ {names} {body} }})", values)


def choose_theme(page: Page, theme: str) -> None:
    """Choose a theme, as a visitor does who sees the page."""
    page.locator(f"input[name=theme][value={theme}]").check(force=True)


def press(page: Page, name: str) -> None:
    """Press a button, and wait for the page that follows."""
    with page.expect_navigation():
        page.get_by_role("button", name=name).first.click()


def raw_theme(response: Response | None) -> str:
    """Return the theme in the page as the server sent it."""
    assert response is not None
    found = re.search(r'data-theme="(\w+)"', response.text())
    assert found is not None
    return found[1]


def theme_of(page: Page) -> str | None:
    """Return the theme that the page shows."""
    return page.locator("html").get_attribute("data-theme")


def fill_in(page: Page, **fields: str) -> None:
    """Fill in the check-out's address."""
    for name, text in fields.items():
        page.get_by_label(name).fill(text)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_theme_flash(new_visitor: NewVisitor, scheme: t.Literal["light", "dark"]) -> None:
    """A theme that JavaScript has kept is in the next page's first byte, and no moment of that page has another."""
    visitor = new_visitor(color_scheme=scheme)
    page = opened(visitor)
    wanted = "dark" if scheme == "light" else "light"
    choose_theme(page, wanted)
    page.add_init_script(WATCH_THEME)
    for path in ("/things/diary", "/cart"):
        assert raw_theme(page.goto(path)) == wanted
        run(page, "await flush()")
        page.wait_for_function("() => inks.length > 1")
        assert set(page.evaluate("themes")) == {wanted}
        assert set(page.evaluate("inks")) == {INK[wanted]}


def test_write_then_click(visitor: BrowserContext) -> None:
    """What JavaScript assigns in the very handler of a click, the page that the click opens is made from."""
    page = opened(visitor)
    run(page, "document.querySelector('.wordmark').addEventListener('click', () => { local.prefs.theme = 'dark'; })")
    with page.expect_navigation() as navigation:
        page.click(".wordmark")
    assert raw_theme(navigation.value) == "dark"
    assert theme_of(page) == "dark"


def test_two_tabs(visitor: BrowserContext) -> None:
    """A theme chosen in one tab shows in the other at once; each tab hears of a change once."""
    one, other = opened(visitor), opened(visitor, "/cart")
    choose_theme(one, "dark")
    expect(other.locator("html")).to_have_attribute("data-theme", "dark")
    run(one, "await flush()")
    run(other, "await flush()")
    for page in (one, other):
        assert page.locator(".log li").all_text_contents().count('prefs.theme is now "dark"') == 1


def test_a_checkout_for_each_tab(visitor: BrowserContext) -> None:
    """Two tabs order for two people: each keeps its own step and address through links, forms and reloads."""
    press(opened(visitor), "Add to cart")
    one, other = opened(visitor, "/check-out"), opened(visitor, "/check-out")
    fill_in(one, Name="Ada", Street="12 St James's Square", Town="London")
    fill_in(other, Name="Grace", Street="1 Navy Yard", Town="Washington")
    one.locator("fieldset.address").get_by_role("button", name="Continue").click()
    expect(one.locator("form.wizard")).to_have_attribute("data-step", "delivery")
    other.reload()
    one.reload()
    assert [page.input_value("#name") for page in (one, other)] == ["Ada", "Grace"]
    assert [page.get_attribute("form.wizard", "data-step") for page in (one, other)] == ["delivery", "address"]
    one.locator("fieldset.delivery").get_by_role("button", name="Continue").click()
    expect(one.locator("fieldset.review")).to_contain_text("Ada, 12 St James's Square, London")
    assert run(other, "return [tab.checkout.step, tab.checkout.name]") == ["address", "Grace"]


def test_back_button_with_stale_html(visitor: BrowserContext) -> None:
    """A page from history, made before the theme and the address were chosen, shows and keeps the new ones."""
    page = opened(visitor)
    choose_theme(page, "light")
    page.goto("/things/diary")
    page.goto("/cart")
    run(page, "local.prefs.theme = 'dark'; tab.checkout.town = 'London'; await flush()")
    with page.expect_navigation():
        page.evaluate("setTimeout(() => history.back()); 0")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert run(page, "await flush(); return [local.prefs.theme, tab.checkout.town]") == ["dark", "London"]
    assert raw_theme(page.goto("/cart")) == "dark"


def test_back_button_with_the_back_forward_cache(
    playwright: Playwright, chromium: Path, new_visitor: NewVisitor
) -> None:
    """A page that comes back as it was, from the browser's memory, shows what was chosen since."""
    keeping = playwright.chromium.launch(
        executable_path=chromium, args=ARGUMENTS, ignore_default_args=["--disable-back-forward-cache"]
    )
    page = opened(new_visitor(keeping), "/about")
    page.evaluate("addEventListener('pageshow', event => { window.persisted = event.persisted; })")
    page.goto("/cart")
    run(page, "local.prefs.theme = 'dark'; tab.checkout.town = 'London'; await flush()")
    page.evaluate("setTimeout(() => history.back()); 0")
    page.wait_for_function("() => window.persisted === true")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert run(page, "return [local.prefs.theme, tab.checkout.town]") == ["dark", "London"]
    assert raw_theme(page.goto("/cart")) == "dark"
    page.context.close()
    keeping.close()


def test_quota(visitor: BrowserContext) -> None:
    """With storage full to the last byte, the theme still changes, is reported, and reaches the next page."""
    page = opened(visitor)
    page.evaluate(FILL)
    long = [f"thing-{number}" for number in range(12)]
    press(page, "Yes, remember")
    page.evaluate(FILL)
    assert run(page, "local.prefs.theme = 'dark'; local.seen.slugs = values[0]; return status", long) == "memory"
    assert run(page, "return [local.prefs.theme, local.seen.slugs]") == ["dark", long]
    run(page, "await flush()")
    assert raw_theme(page.goto("/cart")) == "dark"
    assert run(page, "await flush(); return [local.prefs.theme, local.seen.slugs]") == ["dark", long]


def test_strict_csp(visitor: BrowserContext) -> None:
    """Under a policy without anything inline, and with Trusted Types, state works and nobody complains."""
    page = visitor.new_page()
    response = page.goto("/things/flask")
    assert response is not None
    policy = response.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy
    choose_theme(page, "dark")
    run(page, "await flush()")
    page.goto("/cart")
    expect(page.locator("[data-state-bind='prefs.theme']")).to_have_text("dark")


def test_redirect_after_post(visitor: BrowserContext) -> None:
    """What Python writes before a redirect is in the browser once the next page is there."""
    page = opened(visitor)
    press(page, "Yes, remember")
    run(page, "await flush()")
    page.goto("/things/diary")
    press(page, "Add to cart")
    run(page, "await flush()")
    assert run(page, "return local.seen.slugs") == ["diary", "flask"]
    expect(page.locator("[data-state-bind='seen.slugs']")).to_have_text('["diary","flask"]')


def test_consent(visitor: BrowserContext) -> None:
    """Nothing is remembered before the visitor has agreed, nor after a change of mind; the question is asked once."""
    page = opened(visitor)
    page.goto("/things/diary")
    expect(page.get_by_role("heading", name="You have looked at")).to_have_count(0)
    press(page, "Yes, remember")
    page.goto("/things/flask")
    expect(page.get_by_role("heading", name="You have looked at")).to_be_visible()
    expect(page.locator("form.banner")).to_have_count(0)
    assert item_of(page, "seen.slugs") is not None
    [answer] = [cookie for cookie in visitor.cookies() if cookie["name"].endswith("._c")]
    assert answer["value"] == "preferences"


def test_consent_denied(visitor: BrowserContext) -> None:
    """After a "no" the question is not asked again, and neither storage nor a cookie holds what was looked at."""
    page = opened(visitor)
    press(page, "No")
    page.goto("/things/diary")
    expect(page.locator("form.banner")).to_have_count(0)
    run(page, "await flush()")
    assert item_of(page, "seen.slugs") is None
    assert not [cookie for cookie in visitor.cookies() if cookie["name"].endswith("._c")]


def item_of(page: Page, name: str) -> t.Any:
    """Return what localStorage holds for a field."""
    script = "name => Object.entries(localStorage).find(([key]) => key.endsWith(`:${name}`))?.[1] ?? null"
    found = page.evaluate(script, name)
    return None if found is None else json.loads(found)


def test_key_rotation(new_visitor: NewVisitor, launch: Launch) -> None:
    """With a new key, and the old one as a fallback, the answer, the cart, the user and the browser are all known."""
    old, new = base64.b64encode(b"o" * 32).decode(), base64.b64encode(b"n" * 32).decode()
    shop = launch(RotatingShop, "--env", "FLASK_SHOP_THINKS_FOR=0")
    shop.secrets = [old]
    shop.restart()
    visitor = new_visitor(url=shop.url)
    page = opened(visitor)
    press(page, "Yes, remember")
    press(page, "Add to cart")
    run(page, "local.prefs.theme = 'dark'; tab.checkout.town = 'London'; await flush()")
    before = browser_id(visitor)
    shop.secrets = [new, old]
    shop.restart()
    for _ in range(2):
        assert raw_theme(page.goto("/things/diary")) == "dark"
        run(page, "await flush()")
        expect(page.locator("form.banner")).to_have_count(0)
        expect(page.locator(".badge")).to_have_text("1")
        expect(page.get_by_role("heading", name="You have looked at")).to_be_visible()
        assert run(page, "return tab.checkout.town") == "London"
    assert browser_id(visitor) == before
    # All that was sealed with the old key has been sealed anew: now it may go.
    shop.secrets = [new]
    shop.restart()
    page.goto("/things/flask")
    expect(page.locator("form.banner")).to_have_count(0)
    assert browser_id(visitor) == before


def browser_id(context: BrowserContext) -> bytes:
    """Return the random bits of the browser's id, without what signs them."""
    [cookie] = [cookie for cookie in context.cookies() if cookie["name"].endswith("._b")]
    return base64.urlsafe_b64decode(cookie["value"] + "==")[:16]


class RotatingShop(Shop):
    """A shop that is given its keys."""

    secrets: t.Sequence[str] = ()

    def arguments(self) -> list[str]:
        keys = {"SECRET_KEY": self.secrets[0], "SECRET_KEY_FALLBACKS": list(self.secrets[1:])} if self.secrets else {}
        *options, _ = super().arguments()
        return [*options, f"shop:create_app({ {'INSTANCE_PATH': str(self.instance), **keys}!r})"]


def test_private_context(new_visitor: NewVisitor) -> None:
    """Another browser of the same machine knows nothing of the first one's theme, cart and tab."""
    first, other = new_visitor(), new_visitor()
    page = opened(first)
    press(page, "Add to cart")
    run(page, "local.prefs.theme = 'dark'; tab.checkout.town = 'London'; await flush()")
    page = other.new_page()
    assert raw_theme(page.goto("/cart")) == "auto"
    assert run(page, "await flush(); return [local.prefs.theme, tab.checkout.town]") == ["auto", ""]
    expect(page.locator(".badge")).to_have_count(0)


def test_many_cookies(visitor: BrowserContext, shop: Shop) -> None:
    """With 150 short cookies of others, the theme is in the next page, and no request is too large for the server."""
    visitor.add_cookies([{"name": f"c{number}", "value": "x" * 20, "url": shop.url} for number in range(150)])
    page = opened(visitor)
    run(page, "local.prefs.theme = 'dark'; tab.checkout.street = 's'.repeat(60); tab.checkout.town = 'London'")
    assert raw_theme(page.goto("/cart")) == "dark"
    run(page, "await flush()")
    assert run(page, "return [local.prefs.theme, tab.checkout.town]") == ["dark", "London"]


def test_aborted_navigation(visitor: BrowserContext) -> None:
    """Of a page that was answered and never shown, what Python has written arrives; the page before goes on."""

    def answer_in_vain(route: Route) -> None:
        assert route.fetch().ok
        route.abort("aborted")

    page = opened(visitor)
    press(page, "Yes, remember")
    page.route("**/things/diary", answer_in_vain)
    with page.expect_event("requestfailed"):
        page.evaluate("setTimeout(() => (location.href = '/things/diary')); 0")
    run(page, "tab.checkout.name = 'Ada'; await flush()")
    assert raw_theme(page.goto("/cart")) == "auto"
    run(page, "await flush()")
    assert run(page, "return [tab.checkout.name, local.seen.slugs]") == ["Ada", ["diary", "flask"]]


def test_a_worker_is_killed(new_visitor: NewVisitor, own_shop: Shop) -> None:
    """A worker that is killed between two pages costs nothing of what the browser and the server share."""
    visitor = new_visitor(url=own_shop.url)
    page = opened(visitor)
    press(page, "Yes, remember")
    press(page, "Add to cart")
    for number, slug in enumerate(["diary", "hourglass", "music-box"]):
        run(page, "local.prefs.theme = values[0]; tab.checkout.town = values[1]; await flush()", "dark", f"{number}")
        before = own_shop.workers()
        [victim] = own_shop.kill_worker()
        until(lambda before=before, victim=victim: victim not in own_shop.workers() and len(own_shop.workers()) == 2)
        assert raw_theme(page.goto(f"/things/{slug}")) == "dark"
        assert run(page, "await flush(); return tab.checkout.town") == f"{number}"
        expect(page.locator(".badge")).to_have_text("1")
    assert run(page, "return local.seen.slugs") == ["music-box", "hourglass", "diary", "flask"]


def test_prerendered_page(visitor: BrowserContext) -> None:
    """A page that is fetched ahead takes nothing away: what Python wrote still reaches the page that is seen."""
    page = opened(visitor)
    press(page, "Yes, remember")
    ahead = visitor.request.get("/things/diary", headers={"Sec-Purpose": "prefetch;prerender"})
    assert ahead.ok
    page.goto("/cart")
    run(page, "await flush()")
    assert run(page, "return local.seen.slugs") == ["diary", "flask"]
