"""The command ``adamqlr``, also as ``python -m adamqlr``: the command line, where what it imports is installed."""

import sys

from adamqlr.extras import MissingExtra, extras_named
from adamqlr.startup import QuickExit


def main() -> None:
    """Run the command line; where an extra is missing, one line names it, and the exit code is 2."""
    ending = QuickExit()
    try:
        with extras_named():
            from adamqlr.cli import main as run

            run()
    except MissingExtra as error:
        print(f"adamqlr: error: {error}", file=sys.stderr)
        ending.code = 2
    except SystemExit as end:
        ending.code = int(end.code or 0)
    sys.exit(ending.code)


if __name__ == "__main__":
    main()
