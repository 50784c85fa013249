"""Short forms of settings: names for empty sections, and ``section.key=value`` for one setting."""

from collections.abc import Mapping
from typing import Any

import yaml

from adamqlr.errors import UserError


def names_to_mapping(value: Any) -> Any:
    """Let ``[adam, adamqlr: {…}]`` stand for ``{adam: {}, adamqlr: {…}}``, and an empty value for no settings."""
    if isinstance(value, list):
        value = {k: v for item in value for k, v in (item if isinstance(item, Mapping) else {item: None}).items()}
    if isinstance(value, Mapping):
        return {key: {} if settings is None else settings for key, settings in value.items()}
    return value


def apply_override(data: dict[str, Any], override: str) -> None:
    """Change one setting of a configuration that is not yet validated.

    Args:
        data: The configuration, as read from YAML; it is changed.
        override: ``section.key=value``.

    Raises:
        UserError: It is not of this form, or leads through something that is no section.
    """
    path, separator, text = override.partition("=")
    if not separator or not path:
        raise UserError(f"--set {override}: expected section.key=value")
    *parents, last = path.split(".")
    section = data
    for parent in parents:
        if isinstance(section.get(parent), list):
            section[parent] = names_to_mapping(section[parent])
        if section.get(parent) is None:
            section[parent] = {}
        section = section[parent]
        if not isinstance(section, dict):
            raise UserError(f"--set {override}: '{parent}' is not a section")
    section[last] = parse_value(text)


def parse_value(text: str) -> Any:
    """Read a setting's value as YAML would, with ``1e-3`` a number as everywhere else in Python."""
    try:
        return float(text) if "e" in text.lower() else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        return text
