"""The documentation: ``sphinx-build -W docs docs/_build`` with the extra ``docs``, which brings the frameworks too."""

import os
from importlib import import_module
from importlib.metadata import version as installed

from sphinx.ext import autosummary
from sphinx.util.docutils import SphinxDirective

os.environ.setdefault("KERAS_BACKEND", "jax")  # the pages show signatures of xavierfast.keras, on any backend

project = "xavierfast"
author = "xavierfast developers"
copyright = "xavierfast developers, MIT license"
version = release = installed("xavierfast")
extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx_design"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "xavierfast"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
pygments_dark_style = "github-dark"

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"
numpydoc_show_class_members = False
autosummary.WELL_KNOWN_ABBREVIATIONS += ("eq.",)  # after which a summary goes on


class Members(SphinxDirective):
    """A table with one line for each of the named members of a module, and then each member with its docstring."""

    required_arguments = 1
    has_content = True

    def run(self):
        module, names = self.arguments[0], " ".join(self.content).split()
        lines = [f".. currentmodule:: {module}", "", ".. autosummary::", "   :nosignatures:", ""]
        lines += [f"   {name}" for name in names]
        for name in names:
            member = getattr(import_module(module), name)
            is_error = isinstance(member, type) and issubclass(member, Exception)
            kind = "exception" if is_error else "class" if isinstance(member, type) else "function"
            lines += ["", f".. auto{kind}:: {name}", *(["   :members:"] if kind == "class" else [])]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app):
    app.add_directive("members", Members)
