"""Settings by what they spell: text that is a number or a truth value, and hyperparameters that are misspelled."""

import re
from typing import Any

import pytest

from adamqlr.errors import UserError
from adamqlr.study.config import StudyConfig, parse_config
from adamqlr.study.overrides import parse_value
from adamqlr.study.space import Distribution


def parse(settings: dict[str, Any], optimizers: Any, **changes: Any) -> StudyConfig:
    return parse_config({**settings, "optimizers": optimizers, **changes}, "study.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("false", False),
        ("True", True),
        ("1e-3", 1e-3),
        ("[1e-3, 1]", [1e-3, 1]),
        ("{lr: 0.1, eps: 1E-8}", {"lr": 0.1, "eps": 1e-8}),
        ("[epochs, runtime_train]", ["epochs", "runtime_train"]),
        ("fisher", "fisher"),
        ("1e", "1e"),
        ("[1", "[1"),
    ],
)
def test_values_on_the_command_line_are_what_they_spell(text: str, value: object) -> None:
    read = parse_value(text)
    assert (read, type(read)) == (value, type(value))


def test_what_snakemake_takes_for_text_is_what_it_spells(settings: dict[str, Any]) -> None:
    """Within a section, ``snakemake --config`` leaves numbers and truth values as text."""
    given = {
        "adamqlr_untuned": {"options": {"adapt_damping": "false", "betas": ["0.8", "0.99"]}},
        "kfac": {"space": {"damping": {"loguniform": ["1e-3", "1"]}}},
        "nadam_qlr": {"direction": "torch.optim:NAdam", "heuristics": {"adapt_damping": "False"}},
    }
    sweep = {
        "dataset": "digits",
        "optimizer": "kfac",
        "parameter": "damping",
        "values": {"geometric": ["0.5", "2", "3"]},
    }
    study = parse(settings, given, sensitivity={"damping": sweep})
    assert study.optimizer("adamqlr_untuned").options == {"adapt_damping": False, "betas": [0.8, 0.99]}
    assert study.space("kfac")["damping"].values == (1e-3, 1)
    assert study.optimizer("nadam_qlr").heuristics == {"adapt_damping": False}
    assert study.sweep("damping").values == (0.5, 1.0, 2.0)


def test_truth_values_to_choose_from_stay_truth_values() -> None:
    assert [type(value) for value in Distribution(kind="choice", values=(True, False)).values] == [bool, bool]


SWEEP = {"dataset": "digits", "optimizer": "adamqlr", "parameter": "damping", "values": [0.5, 2]}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"sensitivity": {"s": {**SWEEP, "parameter": "dampin"}}}, "sensitivity.s: unknown hyperparameter 'dampin'"),
        ({"sensitivity": {"s": {**SWEEP, "reciprocal": "dampin"}}}, "sensitivity.s: unknown hyperparameter 'dampin'"),
        ({"sensitivity": {"s": {**SWEEP, "parameter": "length"}}}, "sensitivity.s: unknown hyperparameter 'length'"),
        (
            {"sensitivity": {"s": {**SWEEP, "parameter": "batch_size"}}},
            "sensitivity.s: batch_size must be a positive whole number, got 0.5",
        ),
        (
            {"optimizers": [{"adamqlr": {"space": {"dampin": {"uniform": [0, 1]}}}}]},
            "optimizers.adamqlr.space: unknown",
        ),
        ({"optimizers": [{"adamqlr": {"options": {"learning": 1}}}]}, "optimizers.adamqlr.options: unknown"),
    ],
)
def test_misspelled_hyperparameters_are_found_before_anything_runs(
    settings: dict[str, Any], changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UserError, match=re.escape(problem)):
        parse_config({**settings, **changes}, "study.yaml")


def test_what_a_direction_of_ones_own_takes_may_be_varied(settings: dict[str, Any]) -> None:
    own = {"nadam_qlr": {"direction": "torch.optim:NAdam", "batch_size": 100}}
    for parameter in ("damping", "direction.momentum_decay"):
        sweep = {**SWEEP, "optimizer": "nadam_qlr", "parameter": parameter}
        assert parse(settings, own, sensitivity={"s": sweep}).sweep("s").parameter == parameter
    with pytest.raises(UserError, match="unknown hyperparameter 'momentum_decay': known are"):
        parse(settings, own, sensitivity={"s": {**SWEEP, "optimizer": "nadam_qlr", "parameter": "momentum_decay"}})
