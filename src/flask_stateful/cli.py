"""``flask state``: what an operator asks of an application's state."""

from __future__ import annotations

import contextlib
import typing as t
from pathlib import Path

import click
from flask import current_app
from flask.cli import AppGroup

from .cache.cache import Cache
from .cache.survey import survey
from .errors import StateError, StoreError, UnsupportedOperation
from .keys import KEY_FILE, new_secret
from .wiring import Wiring, current_cache, current_wiring

state_group = AppGroup("state", help="Look after the application's state.")

_SHORT_KEY: t.Final = 16


@state_group.command("check")
def check() -> None:
    """Check the settings, the keys, the stores and the clocks. Exit with 1 if there is something to mend."""
    problems = list(_problems(current_wiring()))
    for problem in problems:
        click.echo(f"- {problem}")
    if problems:
        raise click.ClickException(f"{len(problems)} to mend")
    if not current_app.secret_key:
        click.echo(f"SECRET_KEY is not set, so the key file {KEY_FILE} in the instance folder is used; keep it safe.")
    click.echo("All is well.")


def _problems(wiring: Wiring) -> t.Iterator[str]:
    """Yield one sentence for everything that an operator should mend."""
    try:
        wiring.session_service()
    except StateError as error:
        yield from str(error).splitlines()
    key = current_app.secret_key
    if isinstance(key, (str, bytes)) and 0 < len(key) < _SHORT_KEY:
        yield f"SECRET_KEY has {len(key)} characters and can be guessed; `flask state keygen` prints a better one"
    if not key:
        yield from _key_file_problems(Path(current_app.instance_path) / KEY_FILE)
    yield from _declared_problems(wiring)
    for name, store in wiring.settings.stores.items():
        try:
            yield from (f"the {name} store: {problem}" for problem in store.check())
            if store is wiring.settings.session_store and not store.durable:
                yield (
                    f"the {name} store: it may evict sessions before they expire; keep them in another one, as in "
                    'STATEFUL_STORE = {"default": ..., "sessions": "redis://..."}'
                )
        except StateError as error:
            yield f"the {name} store: {error}"
        if not store.persistent:
            yield f"the {name} store: it lives in memory, each worker has its own and a restart loses it"


def _declared_problems(wiring: Wiring) -> t.Iterator[str]:
    """Yield what is wrong with the declared classes, or with where they are kept."""
    try:
        models = wiring.declared.models().values()
    except StateError as error:
        yield from str(error).splitlines()
        return
    durable = [model.title for model in models if model.kind in ("user", "app")]
    if durable and wiring.database_store is not None:
        try:
            wiring.database_store.check()
        except StateError as error:
            yield f"the rows of {' and '.join(durable)}: {error}"
    elif durable and not wiring.settings.default_store.durable:
        yield (
            f"the default store: it may evict what {' and '.join(durable)} keep for ever; use one that does not, and"
            ' give the cache its own, as in STATEFUL_STORE = {"default": ..., "cache": "redis://..."}'
        )


def _key_file_problems(path: Path) -> t.Iterator[str]:
    with contextlib.suppress(OSError):
        if path.stat().st_mode & 0o077:
            yield f"the key file {path} can be read by other users of this machine: chmod 600 {path}"


@state_group.command("purge")
def purge() -> None:
    """Remove what has expired. Stores do so by themselves; this does it now."""
    for name, store in current_wiring().settings.stores.items():
        try:
            click.echo(f"{name}: removed {store.purge_expired()}")
        except UnsupportedOperation as error:
            click.echo(f"{name}: {error}")
        except StoreError as error:
            raise click.ClickException(f"{name}: {error}") from error


@state_group.command("keygen", with_appcontext=False)
def keygen() -> None:
    """Print a new SECRET_KEY."""
    click.echo(new_secret())


@state_group.group("db")
def db_group() -> None:
    """Look after the tables that we keep in databases."""


@db_group.command("create")
def db_create() -> None:
    """Create our tables where they are missing. It changes no other table, and may be run again at any time."""
    try:
        made = dict(_create_tables(current_wiring()))
    except StateError as error:
        raise click.ClickException(str(error)) from error
    for place, tables in made.items():
        click.echo(f"{place}: created {', '.join(tables)}" if tables else f"{place}: nothing to create")
    if not made:
        raise click.ClickException(
            'no database is used; write Stateful(app, db=db), or STATEFUL_STORE = "postgresql+psycopg://..."'
        )


def _create_tables(wiring: Wiring) -> t.Iterator[tuple[str, list[str]]]:
    """Create what is missing; yield each database by the name of its bind or store, and what was."""
    try:
        from .stores.sql import SQLStore
        from .stores.sql.engines import create_beside
        from .stores.sql.tables import VALUES, VERSIONS
    except ModuleNotFoundError:
        return
    engines = wiring.database.engines() if wiring.database else {}
    for bind, engine in sorted(engines.items(), key=lambda item: item[0] != "default"):
        yield bind, create_beside(engine, [VALUES, VERSIONS] if bind == "default" else [VERSIONS])
    for name, store in wiring.settings.stores.items():
        if isinstance(store, SQLStore) and not store.is_given:
            yield f"the {name} store", store.create_table()


@state_group.group("cache")
def cache_group() -> None:
    """Look after the cached values."""


@cache_group.command("clear")
def cache_clear() -> None:
    """Invalidate every cached value of this application, on every worker."""
    _cache().clear()
    click.echo("Every cached value is invalid.")


@cache_group.command("invalidate-tags")
@click.argument("tags", nargs=-1, required=True)
def cache_invalidate_tags(tags: tuple[str, ...]) -> None:
    """Invalidate every cached value that has one of TAGS, on every worker."""
    _cache().invalidate_tags(*tags)
    click.echo(f"Every cached value with {' or '.join(tags)} is invalid.")


@cache_group.command("stats")
def cache_stats() -> None:
    """Show what the store holds of each function and view. Hits and misses are counted by each worker for itself."""
    try:
        shares = survey(current_cache().storage)
    except (StoreError, UnsupportedOperation) as error:
        raise click.ClickException(str(error)) from error
    rows: list[tuple[str, ...]] = [("", "values", "bytes", "stale", "invalidated")]
    for name, share in shares.items():
        rows.append((name, *(f"{count:,}" for count in (share.entries, share.bytes, share.stale, share.invalid))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *counts in rows:
        cells = (count.rjust(width) for count, width in zip(counts, widths[1:], strict=True))
        click.echo("  ".join([name.ljust(widths[0]), *cells]).rstrip())
    if not shares:
        click.echo("The store holds no cached values.")


def _cache() -> Cache:
    return Cache(current_cache)
