"""The configuration as a JSON schema, by which editors complete and check YAML: all that a file may say."""

import inspect
import json
import re
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from adamqlr.study.config import StudyConfig
from adamqlr.study.datasets import DATASETS
from adamqlr.study.defaults import PAPER_SUITES
from adamqlr.study.optimizers import OPTIMIZERS

Schema = dict[str, Any]

_NULL: Schema = {"type": "null"}
_NUMBERS: Schema = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_ATTRIBUTE = re.compile(r"^    (\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)
_ROLE = re.compile(r":\w+:`~?([^`]+)`")


def study_schema() -> Schema:
    """Return the schema of a study's configuration; descriptions are those of the settings' docstrings."""
    schema = StudyConfig.model_json_schema(schema_generator=_Described)
    definitions, properties = schema["$defs"], schema["properties"]
    _let_catalog_complete(definitions)
    for name, known, of_known, of_own in (
        ("suites", list(PAPER_SUITES), "SuiteConfig", "SuiteConfig"),
        ("datasets", list(DATASETS), "KnownDataset", "DatasetConfig"),
        ("optimizers", list(OPTIMIZERS), "OptimizerConfig", "OptimizerConfig"),
    ):
        properties[name] = {"description": properties[name]["description"], **_sections(known, of_known, of_own)}
    definitions["Distribution"] = _distribution(definitions["Distribution"])
    definitions["FactorConfig"]["properties"]["space"]["additionalProperties"] = _ref("Distribution")
    values = definitions["SweepConfig"]["properties"]["values"]
    definitions["SweepConfig"]["properties"]["values"] = {
        "description": values.pop("description"),
        "anyOf": [values, _geometric()],
    }
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}


def schema_text() -> str:
    """Return the schema as the file that editors read."""
    return json.dumps(study_schema(), indent=1, ensure_ascii=False) + "\n"


class _Described(GenerateJsonSchema):
    """A schema with the descriptions that stand under ``Attributes:`` in the models' docstrings, and without titles."""

    def model_schema(self, schema: Any) -> Schema:
        found = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        text = inspect.cleandoc(model.__doc__ or "")
        found["description"] = _markdown(text.partition("\n\n")[0])
        found.pop("title", None)
        of_attributes = dict(_ATTRIBUTE.findall(text.partition("Attributes:\n")[2]))
        for name, property_schema in found.get("properties", {}).items():
            property_schema["description"] = _markdown(of_attributes[name])
        return found

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _markdown(text: str) -> str:
    return _ROLE.sub(r"`\1`", " ".join(text.split()).replace("``", "`"))


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _let_catalog_complete(definitions: dict[str, Schema]) -> None:
    """Settings of a dataset that the catalog knows may all be left out; a file of one's own needs its path."""
    own = definitions["DatasetConfig"]
    definitions["KnownDataset"] = {key: value for key, value in own.items() if key != "required"}
    own["required"] = ["path", *own["required"]]


def _sections(known: list[str], of_known: str, of_own: str) -> Schema:
    """Sections by name: a mapping, where those that are known may be empty, or a list of names and such mappings."""
    mapping: Schema = {
        "type": "object",
        "properties": {key: {"anyOf": [_NULL, _ref(of_known)]} for key in known},
        "additionalProperties": _ref(of_own),
    }
    return {"anyOf": [mapping, {"type": "array", "items": {"anyOf": [{"enum": known}, mapping]}}]}


def _distribution(written_out: Schema) -> Schema:
    forms: Schema = dict.fromkeys(("uniform", "loguniform", "one_minus_loguniform"), _NUMBERS)
    short: Schema = {
        "type": "object",
        "properties": {**forms, "choice": {"type": "array", "minItems": 1}},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {"description": written_out["description"], "anyOf": [short, written_out]}


def _geometric() -> Schema:
    bounds = {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3}
    return {
        "type": "object",
        "properties": {"geometric": bounds},
        "required": ["geometric"],
        "additionalProperties": False,
    }
