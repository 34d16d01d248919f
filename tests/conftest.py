"""What every test can ask for: the servers of :mod:`tests.services`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.services import chromium, launch, mariadb, memcached, postgres, redis_server, valkey  # noqa: E402

__all__ = ["chromium", "launch", "mariadb", "memcached", "postgres", "redis_server", "valkey"]
