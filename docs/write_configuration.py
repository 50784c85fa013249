"""Write what is generated from the settings' own descriptions: docs/configuration.md, and the schema that editors read.

python docs/write_configuration.py, from the repository's root.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adamqlr.study.datasets import DATASETS
from adamqlr.study.optimizers import OPTIMIZERS
from adamqlr.study.schema import Schema, schema_text, study_schema

SCHEMA = Path("workflow/config/study.schema.json")
PAGE = Path("docs/configuration.md")

# Each section of the configuration, and where it stands there.
SECTIONS = {
    "StudyConfig": "The whole file",
    "SuiteConfig": "`suites.NAME`",
    "DatasetConfig": "`datasets.NAME`",
    "TransformerConfig": "`datasets.NAME.transformer`",
    "OptimizerConfig": "`optimizers.NAME`",
    "ScheduleConfig": "`optimizers.NAME.schedule`",
    "Distribution": "`optimizers.NAME.space.HYPERPARAMETER`",
    "TuningConfig": "`tuning`",
    "TrainingConfig": "`training`",
    "PrecisionConfig": "`precision`",
    "FactorialConfig": "`factorials.NAME`",
    "FactorConfig": "`factorials.NAME.directions.NAME`, `factorials.NAME.heuristics.NAME`",
    "SweepConfig": "`sensitivity.NAME`",
    "AblationConfig": "`ablations.NAME`",
    "StatisticsConfig": "`statistics`",
    "ClaimsConfig": "`claims`",
}

TYPES = {"string": "text", "boolean": "`true`, `false`", "integer": "integer", "number": "number"}
BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}

INTRODUCTION = """\
# Configuration reference

Every key of a study's YAML file, generated from the settings' own descriptions in
[`settings.py`](../adamqlr/study/settings.py), [`optimizer_settings.py`](../adamqlr/study/optimizer_settings.py) and
[`config.py`](../adamqlr/study/config.py) by `python docs/write_configuration.py`. A key that is not here is an error
that names it, before anything runs. Only `name`, `datasets` and `optimizers` must be given;
[`quickstart.yaml`](../workflow/config/quickstart.yaml) and [`paper.yaml`](../workflow/config/paper.yaml) show most
keys in use.

Where sections have names, a list of names stands for sections without settings: `optimizers: [adam, adamqlr]`. Of a
dataset that the study [knows by name](#datasets-by-name) nothing must be given.

## Completion in editors

The first line of each configuration in `workflow/config/` is

    # yaml-language-server: $schema=study.schema.json

Editors with the [YAML language server](https://github.com/redhat-developer/yaml-language-server) (the YAML extension
of VS Code, Neovim, Emacs, Helix and others) then complete keys and names, show these descriptions, and underline what
is wrong. The path is relative to the file; for a file elsewhere, write the schema beside it:

    adamqlr schema > study.schema.json

"""


def type_of(schema: Schema) -> str:
    """Say what a value may be; short forms, of which the description tells, are left out."""
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "$ref" in schema:
        return f"[a section]({anchor_of(schema)})"
    if "anyOf" in schema:
        parts = [part for part in schema["anyOf"] if part.get("type") != "null"]
        # An integer is a number as well.
        return type_of(next((part for part in parts if part.get("type") == "number"), parts[0]))
    if schema.get("type") == "array":
        return f"a list of {type_of(schema['items'])}"
    if schema.get("type") == "object":
        entries = next(iter(schema.get("patternProperties", {}).values()), schema.get("additionalProperties"))
        return f"[sections by name]({anchor_of(entries)})" if isinstance(entries, dict) else "values by name"
    limits = [f"{sign} {schema[key]:g}" for key, sign in BOUNDS.items() if key in schema]
    return ", ".join([TYPES[schema["type"]], *limits])


def anchor_of(reference: Schema) -> str:
    """Return the link to a section's table, as repository hosts and Sphinx name it."""
    title = SECTIONS[reference["$ref"].rpartition("/")[2]]
    return "#" + re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def default_of(name: str, section: Schema) -> str:
    """Say what holds where a key is not given."""
    if name in section.get("required", ()):
        return "must be given"
    default = section["properties"][name].get("default")
    return "" if default is None or isinstance(default, dict) else f"`{written(default)}`"


def section_lines(title: str, section: Schema) -> Iterator[str]:
    """Yield a section's heading and table."""
    yield from (f"## {title}", "", section["description"], "")
    yield from ("| key | value | default | |", "|---|---|---|---|")
    for name, settings in section["properties"].items():
        row = (f"`{name}`", type_of(settings), default_of(name, section), settings["description"])
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
    yield ""


def catalog_lines() -> Iterator[str]:
    """Yield the names that a configuration may use without saying what they are."""
    yield from ("## Datasets by name", "", "| name | | what it is, unless said otherwise |", "|---|---|---|")
    for key, dataset in DATASETS.items():
        said = ", ".join(f"{name}: {written(value)}" for name, value in dataset.defaults.items())
        yield f"| `{key}` | {dataset.label} | `{said}` |"
    yield from ("", "## Optimizers by name", "", "| name | | tuned over | fixed |", "|---|---|---|---|")
    for key, optimizer in OPTIMIZERS.items():
        space = "; ".join(f"`{name}`: {values.describe()}" for name, values in optimizer.space.items())
        fixed = {**optimizer.options, **({"batch_size": optimizer.batch_size} if optimizer.batch_size else {})}
        said = ", ".join(f"`{name}: {written(value)}`" for name, value in fixed.items())
        yield f"| `{key}` | {optimizer.label} | {space or 'nothing'} | {said} |"


def written(value: Any) -> str:
    """Write a value as in YAML."""
    text = json.dumps(value, default=lambda distribution: {distribution.kind: distribution.values})
    return text.replace('"', "")


def page() -> str:
    """Return the reference as Markdown."""
    whole = study_schema()
    lines = [INTRODUCTION]
    for name, title in SECTIONS.items():
        section = whole if name == "StudyConfig" else whole["$defs"][name]
        lines += section_lines(title, section["anyOf"][-1] if name == "Distribution" else section)
    return "\n".join([*lines, *catalog_lines(), ""])


if __name__ == "__main__":
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
