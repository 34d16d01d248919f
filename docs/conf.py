"""How the documentation is built. Nothing is fetched: there are no inventories of other projects."""

import importlib.metadata

project = "Flask-Stateful"
author = "The Flask-Stateful authors"
copyright = author
release = importlib.metadata.version("Flask-Stateful")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True

nitpicky = True
# Only names of our own can be resolved, and those must be.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!flask_stateful\.).*"),
    # Type variables, and what a signature mentions but nobody types.
    (r"py:.*", r"flask_stateful\.(cache\..*|extension)\.(P|R|R_co)"),
    (r"py:.*", r"flask_stateful\.declared\..*\.(T|M)"),
    (r"py:.*", r"flask_stateful\.cache\.runtime\.(Default|Runtime)"),
    (r"py:.*", r"flask_stateful\.database\.atomic\.Atomic"),
    (r"py:.*", r"flask_stateful\.cookies\.(options\.Options|request\.RequestCookies)"),
]

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_copy_source = False
