"""Where an application's keyring comes from: ``SECRET_KEY``, or a key file beside the embedded store."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import typing as t
from collections.abc import Iterable, Mapping
from pathlib import Path

from .errors import ConfigError
from .sealing import Keyring
from .stores.base import Store

if t.TYPE_CHECKING:
    from flask import Flask

logger = logging.getLogger("flask_stateful")

KEY_FILE: t.Final = "state.key"
_KEY_BYTES: t.Final = 32


def new_secret() -> str:
    """Return a new secret key: 256 random bits, as 43 URL-safe characters."""
    return secrets.token_urlsafe(_KEY_BYTES)


def make_keyring(app: Flask, stores: Iterable[Store]) -> Keyring:
    """Return the keyring of an application, from ``SECRET_KEY`` and ``SECRET_KEY_FALLBACKS``.

    Without a ``SECRET_KEY``, stores of this machine use a key file in the instance folder, made when it is missing;
    stores that live in memory use a key that does so too.

    :raises ConfigError: if there is no ``SECRET_KEY`` and a store is shared with other machines, or a key is not text.
    """
    config = t.cast("Mapping[str, t.Any]", app.config)
    fallbacks = config.get("SECRET_KEY_FALLBACKS") or ()
    if not isinstance(fallbacks, (list, tuple)):
        raise ConfigError("SECRET_KEY_FALLBACKS must be a list of keys; write SECRET_KEY_FALLBACKS = [old_key]")
    current = app.secret_key or _key_without_setting(Path(app.instance_path), list(stores))
    return Keyring(_key_bytes(current), map(_key_bytes, t.cast("Iterable[object]", fallbacks)))


def _key_bytes(key: object) -> bytes:
    """Return a key as bytes, or raise :exc:`~flask_stateful.errors.ConfigError` where it cannot be one."""
    if isinstance(key, bytes) and key:
        return key
    # What an environment variable holds besides UTF-8 becomes text that cannot be encoded again.
    with contextlib.suppress(UnicodeEncodeError):
        if isinstance(key, str) and key:
            return key.encode()
    raise ConfigError(
        "SECRET_KEY and SECRET_KEY_FALLBACKS must be text that is not empty; `flask state keygen` prints some"
    )


def _key_without_setting(folder: Path, stores: list[Store]) -> str:
    if any(store.shared for store in stores):
        raise ConfigError(
            "a store that other machines share needs a key that they share: set SECRET_KEY to the same secret"
            " everywhere; `flask state keygen` prints one"
        )
    if not any(store.persistent for store in stores):
        return new_secret()
    path = folder / KEY_FILE
    try:
        key = _read_or_create(path)
    except OSError as error:
        raise ConfigError(
            f"SECRET_KEY is not set, and the key file {path} can be neither read nor made ({error.strerror}); set"
            " SECRET_KEY, `flask state keygen` prints one"
        ) from error
    if len(key) < _KEY_BYTES or not key.isascii():
        raise ConfigError(f"{path} holds no usable key; remove it, which ends every session, or set SECRET_KEY")
    return key


def _read_or_create(path: Path) -> str:
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            _create(path)
            logger.warning("SECRET_KEY is not set; made the key file %s, which must be kept as safe as the data", path)
    return path.read_text(encoding="ascii", errors="replace").strip()


def _create(path: Path) -> None:
    """Write a new key file, whole or not at all: another worker may be doing the same."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(new_secret() + "\n")
        os.link(draft, path)
    finally:
        draft.unlink()
