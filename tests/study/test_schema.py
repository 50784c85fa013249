"""The schema by which editors complete a study's YAML, and the reference: both say what the settings are."""

import re
import runpy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from adamqlr.study.config import parse_config
from adamqlr.study.overrides import names_to_mapping
from adamqlr.study.schema import study_schema

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATIONS = sorted((ROOT / "workflow" / "config").glob("*.yaml"))
SCHEMA = jsonschema.Draft202012Validator(study_schema())


def test_what_is_generated_is_as_the_settings_are() -> None:
    written = runpy.run_path(str(ROOT / "docs" / "write_configuration.py"))
    hint = "python docs/write_configuration.py"
    assert (ROOT / written["SCHEMA"]).read_text(encoding="utf-8") == written["schema_text"](), hint
    assert (ROOT / written["PAGE"]).read_text(encoding="utf-8") == written["page"](), hint


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_shipped_configurations_fit_and_name_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=study.schema.json\n")
    SCHEMA.validate(yaml.safe_load(text))


def test_every_setting_has_a_description() -> None:
    schema = study_schema()
    for name, section in {"StudyConfig": schema, **schema["$defs"]}.items():
        for part in (section, *section.get("anyOf", ())):
            for key, settings in part.get("properties", {}).items():
                is_described = settings.get("description") or part.get("maxProperties") == 1
                assert is_described, f"{name}.{key}"


SWEEP = {"dataset": "digits", "optimizer": "adam", "parameter": "lr"}
NADAM = {"optimizer": "torch.optim:NAdam", "space": {"lr": {"loguniform": [1, 2]}}}
SMALL: dict[str, Any] = {"name": "mine", "datasets": ["digits"], "optimizers": ["adam"]}


@pytest.mark.parametrize(
    "change",
    [
        {"suites": ["epochs", {"runtime_train": None}]},
        {"suites": {"short": {"budget": "runtime", "objective": "train_loss"}}},
        {"optimizers": {"adam": None}},
        {"datasets": {"digits": None, "table": {"path": "t.csv", "loss": "half_mse", "epochs": 3, "batch_size": 9}}},
        {"optimizers": ["adam", {"nadam": NADAM}]},
        {"sensitivity": {"lr": {**SWEEP, "values": {"geometric": [1, 8, 4]}}}},
    ],
)
def test_short_forms_fit(change: dict[str, Any]) -> None:
    SCHEMA.validate({**SMALL, **change})


@pytest.mark.parametrize("page", ["README.md", "docs/study.md"])
def test_what_pages_show_is_valid(page: str) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    shown: dict[str, Any] = {}
    for block in map(yaml.safe_load, blocks):
        SCHEMA.validate({**SMALL, **block})
        own = names_to_mapping(block.pop("optimizers", {}))
        shown = {**shown, **block, "optimizers": {**shown.get("optimizers", {}), **own}}
    parse_config(shown, page)


@pytest.mark.parametrize(
    "change",
    [
        {"trainin": {}},
        {"training": {"seed": 3}},
        {"training": {"seeds": 0}},
        {"datasets": ["digts"]},
        {"datasets": {"digits": {"epoch": 3}}},
        {"datasets": {"table": {"loss": "half_mse", "epochs": 3, "batch_size": 9}}},
        {"optimizers": {"adam": {"space": {"lr": {"lognormal": [1, 2]}}}}},
        {"sensitivity": {"lr": {**SWEEP, "values": {"linear": [1, 8, 4]}}}},
    ],
)
def test_mistakes_do_not_fit(change: dict[str, Any]) -> None:
    assert list(SCHEMA.iter_errors({**SMALL, **change}))
