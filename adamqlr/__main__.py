"""``python -m adamqlr`` is the command line."""

from adamqlr.cli import main

main()
