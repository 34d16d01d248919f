"""The exceptions of this package, one tree.

.. code-block:: text

    StateError
    ├── ConfigError            a setting is wrong; the text says what to write instead
    ├── StoreError             a store failed
    │   ├── StoreUnavailable   it cannot be reached, or did not answer in time
    │   ├── ValueTooLarge      the value exceeds what the store or a setting allows
    │   └── UnsupportedOperation   this kind of store cannot do that
    ├── PayloadError           bytes that cannot be turned into a value, or the reverse
    │   ├── BadSeal            forged, damaged, swapped, or sealed with an unknown key
    │   │   └── ExpiredSeal    genuine, but past its expiry
    │   ├── DecodeError        genuine bytes that are no value of ours
    │   └── EncodeError        a value of a type that cannot be stored
    ├── CookieTooLarge         name and value exceed what browsers keep
    ├── StateConflict          another writer kept winning, or a lock was lost
    ├── StateClosed            written after the response was saved
    ├── LockTimeout            a lock was not free in time
    └── SessionLimit           the user has as many sessions as allowed

No message carries a stored value, a session id or a key.
"""

from __future__ import annotations


class StateError(Exception):
    """The base of every exception of this package."""


class ConfigError(StateError):
    """A setting is wrong; the message says what to write instead."""


class StoreError(StateError):
    """A store could not do what it was asked; the cause is chained."""


class StoreUnavailable(StoreError):
    """The store cannot be reached, or did not answer in time."""


class ValueTooLarge(StoreError):
    """A value exceeds what the store or a setting allows."""


class UnsupportedOperation(StoreError):
    """This kind of store lacks the ability that was asked for."""


class PayloadError(StateError):
    """Bytes that cannot be turned into a value, or a value into bytes."""


class BadSeal(PayloadError):
    """A sealed value is forged, damaged, swapped, or its key is unknown."""


class ExpiredSeal(BadSeal):
    """A sealed value is genuine but past its expiry."""


class DecodeError(PayloadError):
    """Bytes are not an encoded value of ours."""


class EncodeError(PayloadError):
    """A value has a type that cannot be stored; the message names the path to it."""


class CookieTooLarge(StateError):
    """A cookie's name and value exceed what browsers keep."""


class StateConflict(StateError):
    """A write lost against other writers, or outlived the lock it relied on."""


class StateClosed(StateError):
    """State was written after the response had been saved."""


class LockTimeout(StateError):
    """A lock was not free in time."""


class SessionLimit(StateError):
    """The user already has as many sessions as the settings allow."""
