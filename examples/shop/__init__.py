"""Kept: a shop for things that keep things, and the example of Flask-Stateful.

Read ``kept.py`` first: it says what is kept of a visitor, and where. ``cart.py`` and ``checkout.py`` work with that.
``views.py`` has the pages, ``csrf.py`` the token in the forms, ``drawer.py`` what is shown of it all, and ``app.py``
puts it together.
"""

from .app import create_app

__all__ = ["create_app"]
