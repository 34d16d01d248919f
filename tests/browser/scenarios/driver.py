"""What a scenario needs of a browser, whether it is Chromium or :class:`flask_stateful.testing.FakeBrowser`."""

from __future__ import annotations

import typing as t


class Options(t.TypedDict, total=False):
    """How a browser differs from others."""

    cookies: bool
    storage: bool
    javascript: bool
    #: Seconds by which its clock is wrong.
    clock: float


class Tab(t.Protocol):
    """One tab. Names are such as ``local.prefs.theme``, as JavaScript has them."""

    def open(self, path: str = "/") -> None:
        """Follow a link, or enter an address where no page is open yet."""

    def submit(self, path: str, **fields: str) -> None:
        """Send a form of the page, and go where that leads."""

    def fetch(self, values: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Have Python write values by the module's ``fetch``, and return what it reads."""

    def ask(self, values: dict[str, t.Any]) -> None:
        """Have Python write values in a request of which the module knows nothing."""

    def get(self, name: str) -> t.Any:
        """Return what JavaScript reads."""

    def set(self, name: str, value: t.Any) -> None:
        """Assign as JavaScript does."""

    def delete(self, name: str) -> None:
        """Delete as JavaScript does."""

    def flush(self) -> None:
        """Wait until the server has confirmed everything."""

    def flush_fails(self) -> bool:
        """Tell whether to wait for that is in vain."""

    def reload(self) -> None:
        """Load the page again."""

    def back(self) -> None:
        """Show the page before, as it was."""

    def duplicate(self) -> Tab:
        """Return a copy of the tab."""

    def close(self) -> None:
        """Close the tab."""

    def seen(self) -> dict[str, t.Any]:
        """Return what Python has read for the page that is open."""

    def stored(self, name: str) -> str:
        """Return what web storage holds for a name, such as ``local.prefs.theme``."""

    def plant(self, name: str, item: str) -> None:
        """Put something into web storage, behind the module's back."""


class Browser(t.Protocol):
    """A visitor's browser."""

    def tab(self) -> Tab:
        """Return a new tab."""

    def cookies(self) -> dict[str, str]:
        """Return the cookies."""

    def lose_answer(self) -> None:
        """Let the server's next answer to a push be lost on its way."""

    def offline(self, is_offline: bool) -> None:
        """Cut the browser off, or connect it again."""


class World(t.Protocol):
    """The application, and who visits it."""

    def browser(self, **options: t.Unpack[Options]) -> Browser:
        """Return a new browser."""

    def deploy(self, *, version: int = 1, secrets: t.Sequence[str] = (), wipe: bool = False) -> None:
        """Serve the application anew.

        :param wipe: with an empty store.
        """
