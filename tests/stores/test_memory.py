"""The store in memory keeps the contract, and stays as small as what it holds."""

from __future__ import annotations

from pathlib import Path

from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import StoreConformance


class TestMemoryStore(StoreConformance):
    """The contract."""

    across_processes = False

    def make_store(self, tmp_path: Path) -> MemoryStore:
        """Return a store small enough to try its limit."""
        return MemoryStore(max_value_bytes=2**20)
