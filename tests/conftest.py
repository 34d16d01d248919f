"""What every test can ask for: the servers of :mod:`tests.services`."""

from __future__ import annotations

import sys
import weakref
from pathlib import Path

import pytest

from flask_stateful.declared import registry

ROOT = Path(__file__).parent.parent

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.services import chromium, launch, mariadb, memcached, postgres, redis_server, valkey  # noqa: E402

__all__ = ["chromium", "launch", "mariadb", "memcached", "postgres", "redis_server", "valkey"]


@pytest.fixture(autouse=True)
def own_classes_only(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an application know the declared classes of its own tests, and not what other modules have defined."""
    package = str(request.module.__name__).rpartition(".")[0]
    own = {package, "shop"} if package == "tests.demo" else {package}
    known = {key: cls for key, cls in registry._known.items() if key[0].rpartition(".")[0] in own}
    monkeypatch.setattr(registry, "_known", weakref.WeakValueDictionary(known))
