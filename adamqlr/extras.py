"""What only an extra of the distribution brings: where it is missing, one line says what to install."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from adamqlr.errors import UserError

# Distributions whose modules have another name.
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "yaml": "pyyaml"}
_OF_AN_EXTRA = re.compile(r"(?P<name>[\w.-]+).*\bextra == ['\"](?P<extra>\w+)['\"]")


class MissingExtra(UserError, ImportError):
    """A package that only an extra brings is not installed."""


@contextmanager
def extras_named() -> Iterator[None]:
    """Within it, an import of what only an extra brings fails with one line that names the extra.

    Raises:
        MissingExtra: Such a package is not installed.
        ModuleNotFoundError: Another module is not there.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = extra_with(package)
        if extra is None:
            raise
        raise MissingExtra(f"{package} is not installed: pip install 'adamqlr[{extra}]'", name=package) from error


def extra_with(package: str) -> str | None:
    """Return the extra that brings the distribution of a package; None where none does."""
    wanted = _DISTRIBUTIONS.get(package, package).replace("_", "-").lower()
    found = map(_OF_AN_EXTRA.fullmatch, metadata.requires("adamqlr") or ())
    return next((match["extra"] for match in found if match and match["name"].lower() == wanted), None)
