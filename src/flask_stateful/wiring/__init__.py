"""What :class:`~flask_stateful.Stateful` sets up in one application."""

from .hooks import Wiring, current_cache, current_cookies, current_wiring, wiring_of

__all__ = ["Wiring", "current_cache", "current_cookies", "current_wiring", "wiring_of"]
