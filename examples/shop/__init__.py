"""Kept: a shop for things that keep things, and the example of Flask-Stateful.

Read ``cart.py`` first: it is what a shop needs of a session. ``views.py`` has the pages, with signing in and out,
``csrf.py`` the token in the forms, ``drawer.py`` what is kept where, and ``app.py`` puts it all together.
"""

from .app import create_app

__all__ = ["create_app"]
