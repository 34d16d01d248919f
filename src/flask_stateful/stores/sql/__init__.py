"""The store in an SQL database, and our tables in one."""

from .store import SQLStore
from .tables import METADATA

__all__ = ["METADATA", "SQLStore"]
