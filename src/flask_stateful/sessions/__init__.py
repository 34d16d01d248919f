"""Server-side sessions behind ``flask.session``."""
