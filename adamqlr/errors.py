"""Errors that the user can mend."""


class UserError(Exception):
    """A mistake in what the user gave: one line that names the culprit and what to change.

    The command line prints it without a traceback and exits with code 2.
    """
