"""The one place that says how an optional part of the package is installed."""

RELEASED = False  # the first release on PyPI sets this to True; tests/test_docs.py then names the pages to change


def how_to_install(extra: str) -> str:
    """The command that installs an extra of the package, as error messages and the documentation say it.

    Examples
    --------
    >>> "[jax]'" in how_to_install("jax")
    True
    """
    return f"pip install 'xavierfast[{extra}]'" if RELEASED else f"pip install -e '.[{extra}]' in its checkout"
