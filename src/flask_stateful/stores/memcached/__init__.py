"""The store in Memcached."""

from .store import MemcachedStore

__all__ = ["MemcachedStore"]
