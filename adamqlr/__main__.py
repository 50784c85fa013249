"""The command ``adamqlr``, also as ``python -m adamqlr``: the command line, where what it imports is installed."""

import sys

from adamqlr.extras import MissingExtra, extras_named


def main() -> None:
    """Run the command line; where an extra is missing, one line names it, and the exit code is 2."""
    try:
        with extras_named():
            from adamqlr.cli import main as run

            run()
    except MissingExtra as error:
        print(f"adamqlr: error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
