"""The command ``xavierfast``, of the extra ``cli``."""

import sys


def main() -> None:
    try:
        from .cli import run
    except ImportError as error:
        if error.name in ("typer", "rich"):
            from ._core.extras import how_to_install

            reason = f"the command needs {error.name}: {how_to_install('cli')}"
        elif error.name in ("fcntl", "resource"):  # on Windows
            reason = str(error)
        else:
            raise
        print(f"xavierfast: {reason}", file=sys.stderr)
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
