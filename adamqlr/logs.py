"""How the package's messages look in a terminal and in a job's log."""

import logging


def configure_logging() -> None:
    """Send the package's messages to standard error, with the time of day."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("adamqlr").setLevel(logging.INFO)
