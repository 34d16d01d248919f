"""Many requests to two real processes, at random; whatever order they come in, the books balance.

How the requests interleave differs from run to run, what must come out does not.
"""

from __future__ import annotations

import random
import typing as t
from collections import Counter
from functools import partial

import pytest

from .conftest import Serve
from .support import PATIENCE, Browser, Gunicorn, together

BROWSERS = 8
OPERATIONS = 40
GROUPS = 3
ROUNDS = 8


@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_lost(serve: Serve, seed: int) -> None:
    """Counters and lists that eight browsers change in one session add up to what was answered with 200."""
    server = serve(STATEFUL_LOCK_TIMEOUT=PATIENCE)
    first = server.browser(0)
    first.do("set:start=0")
    browsers = [server.browser(number % 2, cookies_of=first) for number in range(BROWSERS)]
    done = together(*[partial(work, browser, number, seed) for number, browser in enumerate(browsers)])
    (held,) = first.do("show").json
    expected = sum(done, Counter[str]())
    appended = held.pop("list", [])
    assert len(appended) == len(set(appended)) == expected.pop("list", 0)
    assert held == {"start": "0", **expected}


def work(browser: Browser, number: int, seed: int) -> Counter[str]:
    """Send requests at random, and return what they should have added up to."""
    randomly = random.Random(f"{seed}/{number}")
    done = Counter[str]()
    mine = f"mine{number}"
    for operation in range(OPERATIONS):
        match randomly.choice(["own", "own", "shared", "append", "both", "read"]):
            case "own":
                steps, keys = [f"count:{mine}"], [mine]
            case "shared":
                steps, keys = ["lock", "count:shared"], ["shared"]
            case "append":
                steps, keys = ["lock", f"append:list={number}.{operation}"], ["list"]
            case "both":
                steps, keys = [f"count:{mine}", "lock", "count:shared"], [mine, "shared"]
            case _:
                steps, keys = ["read:start"], []
        answer = browser.do(*steps, f"read:{mine}")
        assert answer.status == 200, answer.text
        done.update(keys)
        assert answer.json[-1] == (done[mine] or None), "a browser did not see its own write"
    return done


@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_resurrected(serve: Serve, seed: int) -> None:
    """While some tabs of a browser read and write, another one ends or moves the session: what is dead stays dead."""
    server = serve(STATEFUL_LOCK_TIMEOUT=PATIENCE)
    browsers = [[server.browser(tab % 2) for tab in range(3)] for _ in range(GROUPS)]
    dead = together(*[partial(live, tabs, group, seed) for group, tabs in enumerate(browsers)])
    for cookies in dead:
        assert_dead(server, cookies)


def live(tabs: list[Browser], group: int, seed: int) -> list[dict[str, str]]:
    """Log a user in and out again and again, while other tabs do something, and return the cookies that died."""
    randomly = random.Random(f"{seed}/{group}")
    cookies: dict[str, str] = {}
    for tab in tabs:
        tab.cookies = cookies
    died: list[dict[str, str]] = []
    for number in range(ROUNDS):
        user, owner = f"user{group}", f"{group}.{number}"
        assert tabs[0].do("clear", f"set:owner={owner}", f"login:{user}").status == 200
        died.append(dict(cookies))
        ending = randomly.choice(["logout", "destroy", "rotate", f"login:{user}"])
        together(
            partial(use, tabs[0], owner, randomly.randrange(8)),
            partial(use, tabs[1], owner, randomly.randrange(8)),
            partial(end, tabs[2], ending, randomly.randrange(4)),
        )
        assert cookies != died[-1]
        data, bound = tabs[0].do("show", "user").json
        if ending in ("logout", "destroy"):
            assert (data.get("owner"), bound) == (None, None)
        else:
            assert (data["owner"], bound) == (owner, user)
    return died


def use(tab: Browser, owner: str, times: int) -> None:
    """Send requests that find either this round's session or none."""
    for number in range(times):
        steps = [["read:owner", f"set:key{number}=1"], ["lock", "append:list=1", "read:owner"], ["read:owner"]]
        answer = tab.do(*steps[number % 3])
        assert answer.status == 200, answer.text
        assert answer.json in ([owner], [None])


def end(tab: Browser, ending: str, after: int) -> None:
    """End or move the session, after some requests."""
    for _ in range(after):
        tab.do("read:owner")
    assert tab.do(ending).status == 200


def assert_dead(server: Gunicorn, cookies: t.Iterable[dict[str, str]]) -> None:
    """Find nothing behind any of these cookies, in either process."""
    for number, jar in enumerate(cookies):
        browser = server.browser(number % 2)
        browser.cookies = dict(jar)
        assert browser.do("show", "user").json == [{}, None]
        browser.close()
