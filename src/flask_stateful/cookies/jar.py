"""The jars: what an application does with cookies."""

from __future__ import annotations

import typing as t

from ..serialization import MISSING
from .header import HOST
from .options import CookieOptions, Options
from .outgoing import Kind
from .request import RequestCookies

#: Leaves an attribute as the cookie was set with it.
_AS_SET: t.Final[t.Any] = MISSING


class Jar:
    """Cookies of one kind, by name.

    Reading gives what this request has written, or what the browser has sent; what was forged, damaged, cut or has
    expired is not there. A value is decoded once in each request. A change inside a list or dict is not seen: set the
    value again.

    :param find: returns the cookies of the current request.
    :param options: what is said about a cookie of this jar unless it is said otherwise.
    """

    def __init__(self, find: t.Callable[[], RequestCookies], kind: Kind, options: Options) -> None:
        self._find = find
        self._kind: Kind = kind
        self._options = options

    def with_options(self, **options: t.Unpack[CookieOptions]) -> Jar:
        """Return the same jar with other options, said once for reading, setting and deleting.

        :raises ValueError: if no browser would take one.
        """
        return Jar(self._find, self._kind, self._options.but(options))

    def get(self, name: str, default: t.Any = None) -> t.Any:
        """Return a cookie's value, or a default where there is none.

        :raises StoreUnavailable: if the value was spilled and the store cannot be reached.
        """
        value = self._find().get(self._kind, name, self._options)
        return default if value is MISSING else value

    def set(self, name: str, value: t.Any, **options: t.Unpack[CookieOptions]) -> None:
        """Set a cookie.

        :param options: see :class:`~flask_stateful.cookies.options.CookieOptions`.
        :raises CookieTooLarge: if name and value exceed 4,096 octets and ``overflow`` is ``"error"``.
        :raises EncodeError: if the value is of a type that cannot be stored.
        :raises ValueError: if browsers would refuse the cookie; the text says what to write instead.
        :raises StateClosed: if the response has been saved.
        """
        self._find().set(self._kind, name, value, self._options.but(options))

    def delete(
        self, name: str, *, path: str = _AS_SET, domain: str | None = _AS_SET, partitioned: bool = _AS_SET
    ) -> None:
        """Remove a cookie, whether or not this request has it.

        A browser obeys only where path, domain and partition are those that the cookie was set with. They are known if
        this request has set it, or if the cookie itself says so, as sealed and signed ones do.

        :raises StateClosed: if the response has been saved.
        """
        said = {"path": path, "domain": domain, "partitioned": partitioned}
        changes = {key: value for key, value in said.items() if value is not _AS_SET}
        self._find().delete(self._kind, name, self._options, changes)

    def pop(self, name: str, default: t.Any = MISSING) -> t.Any:
        """Remove a cookie and return its value.

        :raises KeyError: if there is none, and no default.
        """
        value = self.get(name, MISSING)
        if value is not MISSING:
            self.delete(name)
            return value
        if default is MISSING:
            raise KeyError(name)
        return default

    def __getitem__(self, name: str) -> t.Any:
        value = self.get(name, MISSING)
        if value is MISSING:
            raise KeyError(name)
        return value

    def __setitem__(self, name: str, value: t.Any) -> None:
        self._find().set(self._kind, name, value, self._options)

    def __delitem__(self, name: str) -> None:
        self.pop(name)

    def __contains__(self, name: object) -> bool:
        return self.get(t.cast("str", name), MISSING) is not MISSING

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._kind}>"

    # Which cookies a browser holds is for it to say: a jar cannot be walked through.
    __iter__ = None


class Cookies(Jar):
    """The sealed jar, ``state.cookies``, and the other two beside it.

    A sealed cookie holds any value that a session can hold. Nobody else can read or forge it, use it under another
    name, or use it when it has expired. On HTTPS its name begins with ``__Host-`` where path and domain allow that, and
    then only such a one is read.
    """

    def __init__(self, find: t.Callable[[], RequestCookies]) -> None:
        super().__init__(find, "sealed", Options(prefix=HOST))
        #: Text that others can read and nobody can forge.
        self.signed: t.Final = Jar(find, "signed", Options())
        #: Text as it is, for scripts to read and write.
        self.plain: t.Final = Jar(find, "plain", Options(httponly=False))
