"""What happened to the application's state, as blinker signals.

Each is sent with the application as sender. None carries a value, a key or an id: a session is named by
``reference``, a keyed hash that is the same in every signal and log line about one session id.
"""

from __future__ import annotations

from blinker import Namespace

_signals = Namespace()

#: A session got its first record. Sent with ``reference``.
session_created = _signals.signal("session-created")

#: A session moved to a new id. Sent with ``reference`` (the new id's) and ``previous`` (the old one's).
session_rotated = _signals.signal("session-rotated")

#: A session ended. Sent with ``reference`` and ``reason``: ``"destroy"``, ``"logout"``, ``"cleared"``, ``"emptied"`` or
#: ``"expired"``.
session_destroyed = _signals.signal("session-destroyed")

#: A request brought a session cookie that is forged, malformed or unknown. Sent with ``reason``: ``"forged"`` or
#: ``"unknown"``.
session_id_invalid = _signals.signal("session-id-invalid")

#: A stored session could not be opened, and was dropped. Sent with ``reference``.
session_corrupt = _signals.signal("session-corrupt")

#: A cached value was served. Sent, as the next three, with ``name``, what log lines call it, and ``event``, the name of
#: the counter in :attr:`state.cache.stats <flask_stateful.cache.cache.Cache.stats>`: here ``"hits_memory"``,
#: ``"hits_store"`` or ``"hits_stale"``.
cache_hit = _signals.signal("cache-hit")

#: There was no cached value that could be served. Sent with ``name`` and ``event``.
cache_miss = _signals.signal("cache-miss")

#: A cached value was computed anew while the old one was served. Sent with ``name`` and ``event``.
cache_refreshed = _signals.signal("cache-refreshed")

#: A value could not be cached, read or refreshed; the caller got it all the same. Sent with ``name`` and ``event``.
cache_error = _signals.signal("cache-error")

#: A change of declared state was saved. Sent with ``name``, as in ``"prefs.theme"``. Of state in a browser, also with
#: ``by``: ``"browser"`` where a write of JavaScript has arrived, ``"server"`` where one of Python was saved.
state_changed = _signals.signal("state-changed")

#: A kept value of declared state did not fit its field, so that the default holds. Sent with ``name`` and
#: ``reason``: ``"type"``, or ``"seal"`` where it could not be opened.
state_invalid = _signals.signal("state-invalid")

#: A store stopped answering. Sent with ``store``, its name in the settings, and ``error``, the exception's type.
store_down = _signals.signal("store-down")

#: A store that was down answers again. Sent with ``store``.
store_up = _signals.signal("store-up")

#: A user was bound to the request's session, or unbound: ask ``state.user_id``. Sent with ``left``: whether another
#: one was bound to it before.
user_changed = _signals.signal("user-changed")
