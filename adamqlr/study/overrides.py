"""Short forms of settings: names for empty sections, and ``section.key=value`` for one setting."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator

from adamqlr.errors import UserError

_TRUTH = {"true": True, "false": False}
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def names_to_mapping(value: Any) -> Any:
    """Return the sections that names stand for, where it is names.

    Returns:
        ``{adam: {}, adamqlr: {…}}`` for ``[adam, adamqlr: {…}]``, and no settings for an empty value.

    Raises:
        ValueError: Something is named twice, or there is a name and no list of them.
    """
    if isinstance(value, str):
        raise ValueError(f"expected a list of names, or sections by name: write [{value}]")
    if isinstance(value, list):
        if strange := [item for item in value if not isinstance(item, str | Mapping)]:
            raise ValueError(f"expected names, got {strange[0]!r}")
        pairs = [pair for item in value for pair in (item if isinstance(item, Mapping) else {item: None}).items()]
        value = dict(pairs)
        if len(value) < len(pairs):
            twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
            raise ValueError(f"'{twice}' is named twice")
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
            try:
                section[parent] = names_to_mapping(section[parent])
            except ValueError as error:
                raise UserError(f"{parent}: {error}") from error
        if section.get(parent) is None:
            section[parent] = {}
        section = section[parent]
        if not isinstance(section, dict):
            raise UserError(f"--set {override}: '{parent}' is not a section")
    section[last] = parse_value(text)


def parse_value(text: str) -> Any:
    """Read a setting's value as YAML would, with ``1e-3`` a number as everywhere else in Python."""
    try:
        return spelled_out(yaml.safe_load(text))
    except yaml.YAMLError:
        return text


def spelled_out(value: Any) -> Any:
    """Return what text spells: a number, ``true`` or ``false``, also within lists and sections.

    YAML takes ``1e-3`` for text, and Snakemake takes everything within a section on its command line for text.
    """
    if isinstance(value, Mapping):
        return {key: spelled_out(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(spelled_out, value))
    if not isinstance(value, str):
        return value
    if value.lower() in _TRUTH:
        return _TRUTH[value.lower()]
    if _NUMBER.fullmatch(value):
        return float(value) if set(value) & set(".eE") else int(value)
    return value


# Keyword arguments, whose types the configuration does not know.
Options = Annotated[dict[str, Any], BeforeValidator(spelled_out)]
