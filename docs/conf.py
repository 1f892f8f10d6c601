"""The documentation: ``sphinx-build -W docs docs/_build`` with the extra ``docs``."""

import os
from importlib.metadata import version as installed

os.environ.setdefault("KERAS_BACKEND", "jax")

project = "xavierfast"
version = release = installed("xavierfast")
extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = "xavierfast"
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"
numpydoc_show_class_members = False
suppress_warnings = ["myst.xref_missing"]  # links to files of the repository
