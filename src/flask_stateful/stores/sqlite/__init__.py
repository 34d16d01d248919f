"""The embedded store."""

from .store import SQLiteStore

__all__ = ["SQLiteStore"]
