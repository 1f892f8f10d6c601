"""The command ``xavierfast``, of the extra ``cli``."""

import sys


def main() -> None:
    try:
        from .cli import run
    except ImportError as error:
        if error.name not in ("typer", "rich"):
            raise
        from ._core.extras import how_to_install

        print(f"xavierfast: the command needs {error.name}: {how_to_install('cli')}", file=sys.stderr)
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
