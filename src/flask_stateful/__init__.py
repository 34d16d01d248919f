"""All of a Flask application's state: one security model, one consistency model, one set of stores."""

from .errors import (
    ConfigError,
    CookieTooLarge,
    LockTimeout,
    StateClosed,
    StateConflict,
    StateError,
    StoreError,
    StoreUnavailable,
    ValueTooLarge,
)
from .extension import Stateful
from .sessions.manager import SessionInfo

__all__ = [
    "ConfigError",
    "CookieTooLarge",
    "LockTimeout",
    "SessionInfo",
    "StateClosed",
    "StateConflict",
    "StateError",
    "Stateful",
    "StoreError",
    "StoreUnavailable",
    "ValueTooLarge",
]
