"""The statements that are the same everywhere."""

from __future__ import annotations

import typing as t

from sqlalchemy import BigInteger, LargeBinary, bindparam, delete, or_, select, update

from .tables import VALUES

#: How many keys one statement takes, so that other writers get their turn between two.
CHUNK: t.Final = 500

_key, _value, _expires = VALUES.c.key, VALUES.c.value, VALUES.c.expires

_is_key: t.Final = _key == bindparam("at", type_=LargeBinary)
_is_one_of: t.Final = _key.in_(bindparam("these", type_=LargeBinary, expanding=True))
_is_unchanged: t.Final = _value == bindparam("old", type_=LargeBinary)

_now: t.Final = bindparam("now", type_=BigInteger)
_lives: t.Final = or_(_expires.is_(None), _expires > _now)
_is_over: t.Final = _expires <= _now

_new_value: t.Final = bindparam("new_value", type_=LargeBinary)
_new_expires: t.Final = bindparam("new_expires", type_=BigInteger)

GET: t.Final = select(_value).where(_is_key, _lives)
GET_MANY: t.Final = select(_key, _value).where(_is_one_of, _lives)
SWAP: t.Final = update(VALUES).where(_is_key, _is_unchanged, _lives).values(value=_new_value, expires=_new_expires)
COUNT: t.Final = update(VALUES).where(_is_key, _is_unchanged, _lives).values(value=_new_value)
TOUCH: t.Final = update(VALUES).where(_is_key, _lives).values(expires=_new_expires)
DELETE: t.Final = delete(VALUES).where(_is_one_of)

_begins: t.Final = _key.between(bindparam("first", type_=LargeBinary), bindparam("last", type_=LargeBinary))
SCAN: t.Final = (
    select(_key).where(_begins, _key > bindparam("after", type_=LargeBinary), _lives).order_by(_key).limit(CHUNK)
)

EXPIRED: t.Final = select(_key).where(_is_over).limit(CHUNK)
PURGE: t.Final = delete(VALUES).where(_is_one_of, _is_over)
