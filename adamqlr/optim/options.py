"""Checks of what a user passes to an optimizer."""

from typing import Any


def require(condition: bool, name: str, wanted: str, value: Any) -> None:
    """Raise a ValueError that names the option, unless the condition holds."""
    if not condition:
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
