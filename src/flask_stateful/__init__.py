"""All of a Flask application's state: one security model, one consistency model, one set of stores."""

from .declared.classes import AppState, CookieState, LocalState, SessionState, TabState, UserState
from .declared.fields import field
from .declared.migrations import migrate
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
from .serialization import MISSING
from .sessions.manager import SessionInfo

__all__ = [
    "MISSING",
    "AppState",
    "ConfigError",
    "CookieState",
    "CookieTooLarge",
    "LocalState",
    "LockTimeout",
    "SessionInfo",
    "SessionState",
    "StateClosed",
    "StateConflict",
    "StateError",
    "Stateful",
    "StoreError",
    "StoreUnavailable",
    "TabState",
    "UserState",
    "ValueTooLarge",
    "field",
    "migrate",
]
