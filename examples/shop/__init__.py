"""Kept: a shop for things that keep things, and the example of Flask-Stateful.

Read ``kept.py`` first: it says what is kept of a visitor, and where. ``cart.py`` and ``checkout.py`` work with that.
``database.py`` has the shop's own tables, ``catalogue.py`` and ``orders.py`` what is read from them and written.
``views.py`` and ``office.py`` have the pages, ``csrf.py`` the token in the forms, ``drawer.py`` what is shown of it
all, and ``app.py`` puts it together.
"""

from .app import create_app

__all__ = ["create_app"]
