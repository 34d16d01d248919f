"""``client.js``: how much of it there is, and what it takes from a page, in Chromium."""

from __future__ import annotations

import contextlib
import gzip
import json
import shutil
import statistics
import sys
import threading
import typing as t
from collections.abc import Callable, Iterator, Mapping
from importlib import resources

from werkzeug.serving import WSGIRequestHandler, make_server

import flask_stateful.browser
from flask_stateful.browser.client import MODULE, client_module, squeezed
from flask_stateful.browser.scheme import Scheme
from flask_stateful.declared.model import model_of

from .browser import Large, Small, Wizard
from .report import Gate, Part, Table, figure

if t.TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from playwright.sync_api import Page

#: How many assignments a page makes, after so many that are not counted.
_WRITES: t.Final = 60
_WARMING: t.Final = 20

#: A page that is isolated has a clock that is exact to 5 µs; others have a coarse one.
_ISOLATED: t.Final = [
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Embedder-Policy", "require-corp"),
]

#: The module says itself what it took to run, without what it took to come.
_TIMED: t.Final = "const began = performance.now();\n{}\nexport const took = performance.now() - began;\n"

_PAGE: t.Final = "<!doctype html><title>page</title>" + "".join(
    f'<p data-state-bind="large.f{n:02}">some text</p><input data-state-model="large.f{n:02}" value="some text">'
    for n in range(10)
)

#: A visitor who has been here before: each field has a value.
_FILL: t.Final = """async () => {
    const {local, tab, flush} = await import("./client.js");
    for (let n = 0; n < 20; n++) local.large[`f${String(n).padStart(2, "0")}`] = "some text";
    Object.assign(local.small, {theme: "dark", sidebar: false, dense: true, page: 7, zoom: 1.25});
    tab.wizard.step = 2;
    await flush();
}"""

_START: t.Final = """async () => (await import("./client.js")).took"""

#: Many assignments in a row, or each in a task of its own, when the processor has turned to something else meanwhile.
_WRITE: t.Final = """async ([model, field, values, times, resting]) => {
    const {local, flush} = await import("./client.js");
    const spans = [];
    for (let n = 0; n < times; n++) {
        if (resting) await new Promise(done => setTimeout(done));
        const began = performance.now();
        local[model][field] = values[n % 2];
        spans.push(performance.now() - began);
    }
    await flush();
    return spans;
}"""

_IN_A_ROW: t.Final = "many in a row"
_NOW_AND_THEN: t.Final = "each in a task of its own"

_FIELDS: t.Final = {
    "mirrored": ["small", "theme", ["dark", "light"]],
    "kept in the store": ["large", "f01", ["some text", "another text"]],
}


def module_source() -> str:
    """Return the module as it stands in the package."""
    return resources.files(flask_stateful.browser).joinpath(MODULE).read_text(encoding="utf-8")


def octets(source: str) -> int:
    """Return how long a module is as it is sent, without an application's declarations."""
    return len(gzip.compress(squeezed(source).encode(), 9))


def run(*, rounds: int, tick: Callable[[], None]) -> Part:
    """Measure, and judge; without a browser, the size alone."""
    size = octets(module_source())
    rows = [["octets, as it is sent, after gzip", figure(size)]]
    gates = [Gate("B5", "client.js as it is sent: octets after gzip", size, 5120, unit="")]
    chromium = shutil.which("chromium")
    if chromium is None:
        print("client.js is not timed without Chromium: make services brings it", file=sys.stderr)
        return Part([Table("client.js", ("", ""), rows)], gates)
    scheme = Scheme("browser", map(model_of, (Small, Large, Wizard)))
    module = client_module(scheme, url="_state", https=False).body.decode()
    spans = times({"now": module}, chromium, rounds=rounds, tick=tick)["now"]
    start, writes = spans.pop("start"), spans
    rows.append(["a page starts, 26 fields with values, 20 elements, ms", figure(start)])
    rows += [[f"an assignment to a field that is {what}, ms", figure(took)] for what, took in writes.items()]
    worst = max(took for what, took in writes.items() if what.endswith(_IN_A_ROW))
    gates += [
        Gate("B6", "client.js starts in Chromium, ms", start, 2, unit=""),
        Gate("B7", "an assignment in Chromium, many in a row, ms", worst, 0.1, unit=""),
    ]
    return Part([Table("client.js", ("", ""), rows, "Medians.")], gates)


def times(
    modules: Mapping[str, str], chromium: str, *, rounds: int, tick: Callable[[], None]
) -> dict[str, dict[str, float]]:
    """Return the medians of what modules take, in milliseconds; they take turns."""
    from playwright.sync_api import sync_playwright

    found: dict[str, dict[str, list[float]]] = {name: {} for name in modules}
    with _serving(modules) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        pages = {name: browser.new_context().new_page() for name in modules}
        for name, page in pages.items():
            page.goto(f"{url}/{name}/page")
            page.evaluate(_FILL)
        for _ in range(rounds):
            for name, page in pages.items():
                _note(page, f"{url}/{name}/page", found[name])
            tick()
        browser.close()
    return {name: {what: statistics.median(spans) for what, spans in kinds.items()} for name, kinds in found.items()}


def _note(page: Page, url: str, spans: dict[str, list[float]]) -> None:
    page.goto(url)
    spans.setdefault("start", []).append(page.evaluate(_START))
    for what, arguments in _FIELDS.items():
        for how in (_IN_A_ROW, _NOW_AND_THEN):
            found = page.evaluate(_WRITE, [*arguments, _WRITES, how is _NOW_AND_THEN])
            spans.setdefault(f"{what}, {how}", []).extend(found[_WARMING:])


class _Silent(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: t.Any, **__: t.Any) -> None: ...


@contextlib.contextmanager
def _serving(modules: Mapping[str, str]) -> Iterator[str]:
    """Serve for each module a page, the module and an endpoint that confirms everything."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        name, _, what = environ["PATH_INFO"][1:].partition("/")
        kind, body = "text/html", _PAGE
        if what == "client.js":
            kind, body = "text/javascript", _TIMED.format(modules[name])
        elif what != "page":
            kind, body = "application/json", _confirmed(environ)
        start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body))), *_ISOLATED])
        return [body.encode()]

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=_Silent)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _confirmed(environ: WSGIEnvironment) -> str:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    push = json.loads(body or b'{"t": ""}')
    stands = {name: [register[-1] + 1, register[-1]] for name, register in push.get("p", {}).items()}
    return json.dumps({"t": push["t"], "a": stands})
