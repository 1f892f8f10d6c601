"""What the tests of the command `xavierfast` share: how it is called, and a specification of a small model."""

import contextlib
import io
import sys

COMMAND = [sys.executable, "-P", "-m", "xavierfast"]
SPEC = """
dtype = "bfloat16"
[rules]
"*.bias" = "zeros"
"embed.*" = { init = "normal", std = 0.02 }
"*" = "xavier_uniform"
[tensors]
"embed.weight" = "1Kx64"
"h.0.weight" = [64, 64]
"h.0.bias" = [64]
"h.1.weight" = { shape = [64, 32], dtype = "float32", layout = "oi", init = "he_normal" }
"""


def call(*arguments, code=0):
    """Run the command in this process and expect the exit code `code`; return what it printed on standard output, or on
    standard error if the code says that it failed."""
    from xavierfast import cli

    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        found = cli.execute(arguments)
    assert found == code, error.getvalue()
    if code < 2:
        print(error.getvalue(), end="", file=sys.stderr)
    return error.getvalue() if code >= 2 else out.getvalue()
