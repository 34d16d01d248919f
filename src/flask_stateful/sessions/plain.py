"""What Flask's own session keeps as something plainer: ours takes it the same way.

Extensions rely on it: the tokens of OAuth libraries are kinds of dict, and messages in the visitor's language are text
that is made when it is shown. All else that the codec does not know is refused.
"""

from __future__ import annotations

import dataclasses
import typing as t

from markupsafe import Markup

from ..serialization import MAX_DEPTH

_COLLECTIONS: t.Final[tuple[t.Any, ...]] = (list, tuple, set, frozenset)

#: The methods of the kinds themselves: a member of an enumeration may answer by its name instead.
_PLAIN: t.Final[dict[type, t.Callable[[t.Any], t.Any]]] = {
    str: str.__str__,
    bytes: bytes.__bytes__,
    int: int.__int__,
    float: float.__float__,
}


def plain(value: t.Any, depth: int = 0) -> t.Any:
    """Return a value with every part that Flask keeps as something plainer replaced by that.

    :param value: a kind of ``dict``, ``list``, ``tuple``, ``str``, ``bytes``, ``int`` or ``float``, a dataclass, or
        what has ``__html__()``, which is kept as ``Markup``; anything else is returned as it is.
    :param depth: how many others the value lies in.
    :raises RecursionError: if it lies deeper than can be kept.
    """
    if depth > MAX_DEPTH:
        raise RecursionError
    if isinstance(value, (type, bool)):
        return value
    if isinstance(value, dict):
        items = t.cast("t.Any", value).items()
        return {plain(key, depth + 1): plain(part, depth + 1) for key, part in items}
    for kind in _COLLECTIONS:
        if isinstance(value, kind):
            return kind([plain(part, depth + 1) for part in value])
    if callable(getattr(value, "__html__", None)):
        return Markup(value.__html__())  # noqa: S704 (that it is safe is what the method says)
    if dataclasses.is_dataclass(value):
        return plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)}, depth)
    return next((convert(value) for kind, convert in _PLAIN.items() if isinstance(value, kind)), value)
