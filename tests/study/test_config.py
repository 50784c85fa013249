"""The configuration: defaults, names, and errors that say which key."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from adamqlr.errors import UserError
from adamqlr.study.case import Case, cases_of
from adamqlr.study.config import StudyConfig, load_config, parse_config
from adamqlr.study.fingerprint import fingerprint
from adamqlr.study.import_paths import contents_hash
from adamqlr.study.space import Distribution

ROOT = Path(__file__).resolve().parents[2]


def pairs_of(config: StudyConfig, suite: str) -> list[tuple[str, str]]:
    return [(case.dataset, case.optimizer) for case in cases_of(config, suite)]


SWEEP = {"dataset": "digits", "optimizer": "adam", "parameter": "lr", "values": [0.1, 1]}


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "workflow" / "config").glob("*.yaml")))
def test_shipped_configurations_are_valid(name: str) -> None:
    config = load_config(ROOT / "workflow" / "config" / f"{name}.yaml")
    assert config.name == name
    # What is resolved is a configuration again, the same one.
    assert parse_config(config.model_dump(mode="json"), "dump") == config


def test_the_papers_study_is_the_papers() -> None:
    config = load_config(ROOT / "workflow" / "config" / "paper.yaml")
    assert list(config.suites) == ["epochs", "runtime_train", "runtime_validation"]
    assert {key: (d.epochs, d.batch_size) for key, d in config.datasets.items() if key != "rosenbrock"} == {
        "uci_energy": (4000, 588),
        "uci_protein": (200, 1000),
        "fashion_mnist": (10, 50),
        "svhn": (10, 256),
        "cifar10": (72, 128),
    }
    assert (config.tuning.trials, config.tuning.reduction_factor, config.tuning.limit) == (200, 4, 900)
    assert len(Case(config, "epochs", "svhn", "adam").seeds) == 50
    assert len(Case(config, "epochs", "rosenbrock", "adam").seeds) == 1
    assert Case(config, "runtime_train", "svhn", "adam").objective == "train_loss"
    assert Case(config, "epochs", "rosenbrock", "adam").objective == "train_loss"
    assert ("rosenbrock", "adam") not in pairs_of(config, "runtime_train")
    assert config.dataset("cifar10").runtime == 3600
    assert ("uci_energy", "kfac") in pairs_of(config, "epochs")
    assert ("rosenbrock", "kfac") in pairs_of(config, "epochs")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"trainin": {}}, "trainin: unknown key"),
        ({"training": {"seed": 3}}, r"training\.seed: unknown key"),
        ({"training": {"seeds": 0}}, r"training\.seeds: Input should be greater than 0"),
        ({"datasets": {"digits": {"epoch": 3}}}, r"datasets\.digits\.epoch: unknown key"),
        ({"datasets": ["mnist"]}, "unknown dataset 'mnist': known are rosenbrock"),
        ({"datasets": "digits"}, r"datasets: expected a list of names, or sections by name: write \[digits\]"),
        ({"optimizers": "adam"}, r"optimizers: expected a list of names, or sections by name: write \[adam\]"),
        ({"suites": "epochs"}, r"suites: expected a list of names, or sections by name: write \[epochs\]"),
        ({"datasets": {"my/own": {"path": "x"}}}, "dataset name 'my/own'"),
        ({"optimizers": ["adamw"]}, "unknown optimizer 'adamw': known are sgd_minimal"),
        ({"optimizers": {"adam": {"space": {"lr": {"normal": [0, 1]}}}}}, r"optimizers\.adam\.space\.lr\.kind"),
        (
            {"optimizers": {"adam": {"space": {"lr": {"loguniform": [0, 1]}}}}},
            r"optimizers\.adam\.space\.lr: loguniform needs 0 < low <= high",
        ),
        (
            {"optimizers": {"adam": {"space": {"batch_size": {"uniform": [50, 400]}}}}},
            r"optimizers\.adam: space\.batch_size: expected {choice: \[…\]} of positive whole numbers",
        ),
        (
            {"optimizers": {"adam": {"space": {"batch_size": {"choice": ["small", "big"]}}}}},
            r"optimizers\.adam: space\.batch_size: expected {choice",
        ),
        ({"suites": {"mine": {"budget": "days", "objective": "train_loss"}}}, r"suites\.mine\.budget"),
        (
            {"suites": ["mine"]},
            "suites: unknown suite 'mine': known are epochs, .* needs a 'budget' and an 'objective'",
        ),
        ({"name": "a/b"}, "name: String should match"),
        ({"tuning": {"unit": "hours"}}, r"tuning\.unit"),
        ({"suites": {"tuning": {"budget": "epochs", "objective": "train_loss"}}}, "suites: 'tuning' is the name of"),
        ({"sensitivity": {"a": {**SWEEP, "dataset": "svhn"}}}, r"sensitivity\.a: unknown dataset 'svhn'"),
        ({"sensitivity": {"a": {**SWEEP, "optimizer": "kfac"}}}, r"sensitivity\.a: unknown optimizer 'kfac'"),
        ({"sensitivity": {"a": {**SWEEP, "suite": "mine"}}}, r"sensitivity\.a: unknown suite 'mine'"),
        ({"sensitivity": {"a": {**SWEEP, "values": [1]}}}, r"sensitivity\.a\.values"),
        (
            {"sensitivity": {"a": {**SWEEP, "values": [1, 1.00001]}}},
            r"sensitivity\.a: values: two of them are the same",
        ),
        ({"sensitivity": {"a": {**SWEEP, "values": [0, 1], "reciprocal": "b"}}}, r".*0 has no reciprocal"),
        ({"sensitivity": {"a": {**SWEEP, "values": {"geometric": [0, 1, 3]}}}}, r".*two positive bounds"),
        ({"sensitivity": {"a": {**SWEEP, "values": {"linear": [0, 1, 3]}}}}, r".*expected a list of values"),
        ({"sensitivity": {"a/b": SWEEP}}, r"sensitivity\.a/b"),
        ({"ablations": {"a": {"optimizers": ["adam", "adamw"]}}}, r"ablations\.a: unknown optimizer 'adamw'"),
        ({"ablations": {"a": {"optimizers": ["adam"]}}}, r"ablations\.a\.optimizers"),
    ],
)
def test_what_is_wrong_is_named(settings: dict[str, Any], change: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=f"study.yaml: {problem}"):
        parse_config({**settings, **change}, "study.yaml")


def test_the_papers_sensitivity_studies_have_its_values() -> None:
    config = load_config(ROOT / "workflow" / "config" / "paper.yaml")
    sizes = {name: len(sweep.points) for name, sweep in config.sensitivity.items()}
    assert sizes == {
        "lr_rescaling": 11,
        "batch_size": 7,
        "initial_damping": 17,
        "stepping_factor": 11,
        "lr_clipping": 11,
        "adam_batch_size": 7,
        "adam_lr": 19,
        "kfac_batch_size": 7,
        "kfac_initial_damping": 17,
    }
    rescaling = list(config.sweep("lr_rescaling").values)
    assert rescaling == pytest.approx([2 ** (k / 5 - 1) for k in range(11)], rel=1e-5)
    assert config.sweep("stepping_factor").hyperparameters("4") == {"damping_increase": 4, "damping_decrease": 0.25}
    assert all(isinstance(value, int) for value in config.sweep("batch_size").values)


def test_files_that_are_no_configuration_are_named(tmp_path: Path) -> None:
    for content, problem in (("a: [1", "not YAML"), ("- 1", "expected a mapping"), ("{}", "Field required")):
        (tmp_path / "c.yaml").write_text(content)
        with pytest.raises(UserError, match=rf"c\.yaml: .*{problem}"):
            load_config(tmp_path / "c.yaml")
    with pytest.raises(UserError, match=r"none\.yaml: no such file"):
        load_config(tmp_path / "none.yaml")


def test_settings_on_the_command_line_come_first(config_file: Callable[..., Path]) -> None:
    overrides = ["training.seeds=7", "datasets.digits.epochs=2", "optimizers.adam.options.lr=1e-3", "device=auto"]
    config = load_config(config_file(), overrides)
    assert config.training.seeds == 7
    assert config.dataset("digits").epochs == 2
    assert config.optimizer("adam").options == {"lr": 1e-3}
    assert "lr" not in config.space("adam")
    assert config.space("adam")
    for bad, problem in (("training.seeds", "expected section.key=value"), ("name.x=1", "'name' is not a section")):
        with pytest.raises(UserError, match=problem):
            load_config(config_file(), [bad])
    with pytest.raises(UserError, match="optimizers: 'adam' is named twice"):
        load_config(config_file(optimizers=["adam", "adam"]), ["optimizers.adam.label=Mine"])


def test_names_that_the_study_lacks_are_refused(study: StudyConfig) -> None:
    for lookup, problem in (
        (lambda: study.dataset("svhn"), "unknown dataset 'svhn': this study has digits"),
        (lambda: study.optimizer("adam_eps"), "unknown optimizer 'adam_eps': this study has adam"),
        (lambda: study.suite("runtime_train"), "unknown suite 'runtime_train': this study has epochs"),
    ):
        with pytest.raises(UserError, match=problem):
            lookup()


def test_rosenbrock_has_no_batch_size_to_tune(study: StudyConfig) -> None:
    assert set(Case(study, "epochs", "rosenbrock", "adam").space) == {"lr"}
    assert set(Case(study, "epochs", "digits", "adam").space) == {"lr", "batch_size"}


def test_the_environment_names_the_data_folder(study: StudyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADAMQLR_DATA_DIR", raising=False)
    assert study.data_folder == Path("data")
    monkeypatch.setenv("ADAMQLR_DATA_DIR", "/somewhere")
    assert study.data_folder == Path("/somewhere")


def test_fingerprints_tell_settings_apart() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


@pytest.mark.parametrize(
    ("kind", "values", "problem"),
    [
        ("choice", [], "a choice needs at least one value"),
        ("uniform", [1], r"uniform needs two numbers, got \[1\]"),
        ("uniform", ["a", 1], r"uniform needs two numbers, got \['a', 1\]"),
        ("uniform", [2, 1], r"uniform needs low <= high, got \[2, 1\]"),
        ("loguniform", [2, 1], r"loguniform needs 0 < low <= high, got \[2, 1\]"),
        ("one_minus_loguniform", [0, 1], r"one_minus_loguniform needs 0 < low <= high <= 1, got \[0, 1\]"),
    ],
)
def test_impossible_distributions_are_refused(kind: str, values: list[Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Distribution(kind=kind, values=tuple(values))


def test_bounds_below_zero_are_for_a_uniform_distribution() -> None:
    low_and_high = Distribution(kind="uniform", values=(-1, 1))
    assert low_and_high.describe() == "uniform -1 … 1"


def test_distributions_are_written_in_yaml(settings: dict[str, Any]) -> None:
    text = "{adam: {space: {lr: {uniform: [0, 1]}, batch_size: {choice: [8, 16]}}}}"
    space = parse_config({**settings, "optimizers": yaml.safe_load(text)}, "t").space("adam")
    assert space["lr"].describe() == "uniform 0 … 1"
    assert space["batch_size"].values == (8, 16)


LR = {"lr": {"loguniform": [1e-4, 1]}}
NADAM = {"optimizer": "torch.optim:NAdam", "space": LR}
QLR_NADAM = {
    "direction": "torch.optim:NAdam",
    "heuristics": {"damping": 0.1},
    "options": {"momentum_decay": 0.01},
    "space": {"lr_clipping": {"uniform": [0.1, 1]}, "direction.eps": {"loguniform": [1e-8, 1]}},
}
OWN_CLASS = """
import torch

class {name}(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1, warmth=1.0):
        super().__init__(params, {{}})
"""


def with_optimizers(settings: dict[str, Any], optimizers: Any, **changes: Any) -> StudyConfig:
    return parse_config({**settings, "optimizers": optimizers, **changes}, "study.yaml")


@pytest.mark.parametrize("optimizers", [{"adam": {}, "nadam": NADAM}, ["adam", {"nadam": NADAM}]], ids=["map", "list"])
def test_an_optimizer_is_named_by_its_import_path(settings: dict[str, Any], optimizers: Any) -> None:
    config = with_optimizers(settings, optimizers)
    case = Case(config, "epochs", "digits", "nadam")
    assert ("digits", "nadam") in pairs_of(config, "epochs")
    assert (case.spec.wraps, case.spec.label, case.spec.family) == ("torch.optim:NAdam", "nadam", "NAdam")
    assert set(case.space) == {"lr"}
    assert case.hyperparameters({"lr": 0.1}) == {"batch_size": 200, "lr": 0.1}
    assert parse_config(config.model_dump(mode="json"), "dump") == config


def test_an_optimizer_of_ones_own_has_a_name_a_family_and_a_batch_size(settings: dict[str, Any]) -> None:
    mine = {**NADAM, "label": "Nesterov", "family": "Adam", "batch_size": 16, "options": {"eps": 1e-6}}
    case = Case(with_optimizers(settings, {"nadam": mine}), "epochs", "digits", "nadam")
    assert (case.spec.label, case.spec.family) == ("Nesterov", "Adam")
    assert case.hyperparameters({"lr": 0.1}) == {"batch_size": 16, "eps": 1e-6, "lr": 0.1}


def test_an_optimizer_of_ones_own_may_fix_the_length_of_a_texts_rows(settings: dict[str, Any]) -> None:
    study = with_optimizers(settings, {"nadam": {**NADAM, "options": {"length": 20}}})
    assert Case(study, "epochs", "digits", "nadam").hyperparameters({"lr": 0.1})["length"] == 20


def test_one_of_the_catalog_may_be_named_otherwise(settings: dict[str, Any]) -> None:
    config = with_optimizers(settings, {"adam": {"label": "Baseline", "family": "Mine"}, "kfac": {}})
    assert (config.spec("adam").label, config.spec("adam").family) == ("Baseline", "Mine")
    assert (config.spec("kfac").label, config.spec("kfac").family) == ("K-FAC", "K-FAC")


RUNTIME = {"budget": "runtime", "objective": "train_loss"}
OWN = {"optimizer": "torch.optim:NAdam", "space": {"lr": {"loguniform": [1e-3, 1]}}}
A_WITH_B_AND_C = {
    "directions": {"a": {"direction": "gradient"}},
    "heuristics": {"b": {}, "c": {"heuristics": {"lr": 0.1}}},
}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"suites": []}, "suites: none is named"),
        ({"datasets": {}}, "datasets: none is named"),
        ({"optimizers": []}, "optimizers: none is named"),
        ({"optimizers": [["adam"]]}, r"expected names, got \['adam'\]"),
        ({"suites": ["epochs", "runtime_train"], "datasets": ["rosenbrock"]}, "suites.runtime_train: none of the data"),
        ({"optimizers": {"n": {**OWN, "options": {"lr": 1}}}}, "optimizers.n: space: 'lr' is tuned, and fixed by"),
        (
            {
                "optimizers": {
                    "n": {
                        "direction": "torch.optim:SGD",
                        "options": {"lr": 1.0},
                        "space": {"direction.lr": {"loguniform": [1e-3, 1]}},
                    }
                }
            },
            "optimizers.n: space: 'direction.lr' is tuned, and fixed by options",
        ),
        ({"optimizers": {"n": {**OWN, "space": {"lr": {"choice": [0.1, "auto"]}}}}}, "a choice is of numbers or of wo"),
        (
            {"optimizers": {"n": {**OWN, "space": {"lr": {"uniform": [0, float("inf")]}}}}},
            "uniform needs finite bounds",
        ),
        (
            {"optimizers": {"n": {**OWN, "space": {"lr": {"one_minus_loguniform": [0.1, 2]}}}}},
            "one_minus_loguniform needs 0 < low <= high <= 1",
        ),
        (
            {"optimizers": ["adam", {"a-b": {**OWN}}], "factorials": {"f": A_WITH_B_AND_C}},
            "is called 'a-b' too: rename it",
        ),
        ({"optimizers": {"adam": {"datasets": []}}}, "optimizers.adam.datasets: none is named"),
        ({"datasets": {"digits": {"suites": []}}}, "datasets.digits.suites: none is named"),
        ({"optimizers": ["adam", {"adam": {"suites": ["epochs"]}}]}, "'adam' is named twice"),
        ({"datasets": ["digits", "diabetes", "digits"]}, "'digits' is named twice"),
        ({"datasets": {"rosenbrock": {"objective": "validation_loss"}}}, "a function has no validation set"),
        (
            {"datasets": {"descriptions": {"transformer": {"width": 10, "heads": 3}}}},
            "datasets.descriptions.transformer: width 10 is not a multiple of heads 3",
        ),
        ({"datasets": {"digits": {"model": "gpt2"}}}, "datasets.digits.model: 'gpt2' is not for tables or images: use"),
        (
            {
                "datasets": {
                    "mine": {"path": "a.csv", "loss": "half_mse", "epochs": 1, "batch_size": 1, "model": "gpt2"}
                }
            },
            "datasets.mine.model: 'gpt2' is not for tables or images: use mlp, resnet18, resnet50",
        ),
        ({"datasets": {"penn_treebank": {"model": "mlp"}}}, "datasets.penn_treebank.model: 'mlp' is not for text: use"),
        ({"datasets": {"rosenbrock": {"model": "mlp"}}}, "datasets.rosenbrock.model: 'mlp' is not for a function: use"),
        ({"suites": {"my suite": RUNTIME}}, "suites: 'my suite' is no file's name"),
        ({"suites": {"../up": RUNTIME}}, "suites: '../up' is no file's name"),
    ],
)
def test_lists_of_nothing_or_of_one_twice_and_what_cannot_be_are_refused(
    settings: dict[str, Any], changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        parse_config({**settings, **changes}, "study.yaml")


def test_results_of_other_datasets_are_read_where_one_could_not_be_trained_on(study: StudyConfig) -> None:
    stored = study.model_dump(mode="json")
    stored["datasets"]["digits"]["model"] = "gpt2"
    assert parse_config(stored, "study.nc", is_complete=True).dataset("digits").model == "gpt2"
    with pytest.raises(UserError, match=r"^study\.yaml: datasets\.digits\.model: 'gpt2' is not for tables"):
        parse_config(stored, "study.yaml")


def test_a_direction_is_put_under_heuristics(settings: dict[str, Any]) -> None:
    config = with_optimizers(settings, ["adam", {"qlr_nadam": QLR_NADAM}, {"qlr_adam": {"direction": "adam"}}])
    case = Case(config, "epochs", "digits", "qlr_nadam")
    assert case.spec.has_damping
    assert case.spec.family == "QLR over NAdam"
    assert set(case.space) == {"lr_clipping", "direction.eps"}
    assert case.hyperparameters({"lr_clipping": 0.5, "direction.eps": 1e-4}) == {
        "batch_size": 200,
        "damping": 0.1,
        "direction.momentum_decay": 0.01,
        "lr_clipping": 0.5,
        "direction.eps": 1e-4,
    }
    assert not Case(config, "epochs", "digits", "qlr_adam").is_tuned
    assert parse_config(config.model_dump(mode="json"), "dump") == config


@pytest.mark.parametrize(
    ("optimizer", "problem"),
    [
        ({"optimizer": "torchoptim:NAdam"}, "no module 'torchoptim': is it installed?"),
        ({"optimizer": "torch.optimum:NAdam"}, "no module 'torch.optimum' in the package 'torch'"),
        ({"optimizer": "torch.optim:NAdamm"}, "'torch.optim:NAdamm': torch.optim has no NAdamm"),
        ({"optimizer": "torch.optim.NAdam"}, "'torch.optim.NAdam': expected module:Name"),
        ({"optimizer": "none.py:Mine"}, "'none.py': no such file; paths are relative to where the program runs"),
        ({**NADAM, "options": {"lrr": 1}}, "options: unknown option 'lrr': known are betas, capturable"),
        ({**NADAM, "space": {"lrr": {"uniform": [0, 1]}}}, "space: unknown option 'lrr': known are betas, capturable"),
        (
            {"direction": "adm"},
            "'adm': expected module:Name, such as torch.optim:NAdam, or file.py:Name; directions",
        ),
        ({"direction": "adam", "options": {"eps": 1e-6}}, "options: the direction 'adam' has none: give them as heur"),
        (
            {"direction": "adam", "space": {"direction.eps": {"loguniform": [1e-8, 1]}}},
            "space: 'direction.eps': the direction 'adam' has no options: tune heuristics",
        ),
        ({"direction": "none.py:Mine"}, "'none.py': no such file; paths are relative to where the program runs"),
        ({"direction": "adam", "heuristics": {"lrr": 1}}, "heuristics: unknown option 'lrr': known are adapt_damping"),
        ({"direction": "torch.optim:NAdamm"}, "'torch.optim:NAdamm': torch.optim has no NAdamm"),
        ({**QLR_NADAM, "heuristics": {"dampin": 1}}, "heuristics: unknown option 'dampin': known are adapt_damping"),
        ({**QLR_NADAM, "options": {"damping": 1}}, "options: unknown option 'damping': known are betas, capturable"),
        ({**QLR_NADAM, "space": {"eps": {"uniform": [0, 1]}}}, "space: unknown option 'eps': known are adapt_damping"),
        (
            {**QLR_NADAM, "space": {"direction.dampin": {"uniform": [0, 1]}}},
            "space: unknown option 'dampin': known are betas, capturable",
        ),
        ({**QLR_NADAM, "heuristics": {"batch_size": 50}}, "heuristics: unknown option 'batch_size': known are adapt"),
        ({**QLR_NADAM, "options": {"batch_size": 50}}, "options: unknown option 'batch_size': known are betas"),
        ({**NADAM, "direction": "adam"}, "'optimizer' and 'direction' are both given: one of them says what it is"),
        ({**NADAM, "heuristics": {"damping": 1}}, "'heuristics' need a 'direction'"),
        ({**NADAM, "batch_size": 0}, "batch_size: Input should be greater than 0"),
    ],
)
def test_what_is_wrong_with_an_optimizer_of_ones_own_is_named(
    settings: dict[str, Any], optimizer: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UserError) as raised:
        with_optimizers(settings, ["adam", {"mine": optimizer}])
    # pydantic puts a dot before a setting's name and a colon before what is wrong with the whole.
    assert str(raised.value).startswith(
        (f"study.yaml: optimizers.mine: {problem}", f"study.yaml: optimizers.mine.{problem}")
    )
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("own", [NADAM, QLR_NADAM], ids=["optimizer", "direction"])
def test_a_name_of_the_catalog_is_no_name_of_ones_own(settings: dict[str, Any], own: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^study\.yaml: optimizer 'adam' is one of the catalog: choose another name"):
        with_optimizers(settings, {"adam": own})


@pytest.mark.parametrize("optimizers", ["adam", 3])
def test_optimizers_that_are_no_list_are_one_clear_error(settings: dict[str, Any], optimizers: Any) -> None:
    with pytest.raises(UserError, match=r"^study\.yaml: .*optimizer[^\n]*$"):
        with_optimizers(settings, optimizers)


def test_datasets_and_optimizers_are_restricted_to_each_other(settings: dict[str, Any]) -> None:
    datasets = {"digits": {}, "diabetes": {"optimizers": ["kfac", "nadam"]}, "rosenbrock": {"optimizers": ["adam"]}}
    optimizers = {"adam": {}, "nadam": {**NADAM, "datasets": ["digits"]}, "kfac": {"datasets": ["diabetes", "digits"]}}
    config = with_optimizers(settings, optimizers, datasets=datasets)
    assert pairs_of(config, "epochs") == [
        ("digits", "adam"),
        ("digits", "nadam"),
        ("digits", "kfac"),
        ("diabetes", "kfac"),
        ("rosenbrock", "adam"),
    ]
    for changes, problem in (
        ({"datasets": {"digits": {"optimizers": ["kfc"]}}}, r"datasets\.digits\.optimizers: unknown 'kfc'"),
        ({"optimizers": {"adam": {"datasets": ["svhn"]}}}, r"optimizers\.adam\.datasets: unknown 'svhn'"),
        ({"optimizers": {"adam": {"suites": ["epoch"]}}}, r"optimizers\.adam\.suites: unknown 'epoch'"),
        ({"datasets": {"digits": {"suites": ["epoch"]}}}, r"datasets\.digits\.suites: unknown 'epoch'"),
        (
            {"ablations": {"pair": {"optimizers": ["adam", "kfac"], "datasets": ["svhn"]}}},
            r"ablations\.pair\.datasets: unknown 'svhn'",
        ),
    ):
        with pytest.raises(UserError, match=f"study.yaml: {problem}: this study has "):
            parse_config({**settings, **changes}, "study.yaml")


def test_optimizers_are_restricted_to_suites(settings: dict[str, Any]) -> None:
    optimizers = {"adam": {}, "kfac": {"suites": ["runtime_train"]}}
    factorials = {"parts": {**FACTORIAL, "suites": ["epochs"], "batch_size": 400}}
    changes = {"suites": ["epochs", "runtime_train"], "datasets": ["digits"], "factorials": factorials}
    config = with_optimizers(settings, optimizers, **changes)
    pairs = [f"{direction}-{heuristics}" for direction in ("sgd", "nadam", "kfac") for heuristics in ("none", "damped")]
    assert config.optimizers_of("epochs", "digits") == ["adam", *pairs]
    assert config.optimizers_of("runtime_train", "digits") == ["adam", "kfac"]
    assert {Case(config, "epochs", "digits", pair).hyperparameters({})["batch_size"] for pair in pairs} == {400}
    assert config.factorials_of("epochs") == ["parts"]
    assert config.factorials_of("runtime_train") == []


FACTORIAL = {
    "directions": {
        "sgd": {"direction": "gradient", "label": "Gradient"},
        "nadam": {"direction": "torch.optim:NAdam", "options": {"eps": 1e-6}, "heuristics": {"lr_clipping": 0.1}},
        "kfac": {"optimizer": "adamqlr:KFAC"},
    },
    "heuristics": {
        "none": {"label": "Undamped", "heuristics": {"damping": 0.0, "adapt_damping": False}},
        "damped": {"heuristics": {"lr_clipping": 0.2}, "space": {"damping": {"loguniform": [1e-8, 1]}}},
    },
    "datasets": ["digits"],
}


def test_a_factorial_is_every_direction_with_every_combination_of_heuristics(settings: dict[str, Any]) -> None:
    config = with_optimizers(settings, ["adam"], factorials={"parts": FACTORIAL})
    pairs = [f"{direction}-{heuristics}" for direction in ("sgd", "nadam", "kfac") for heuristics in ("none", "damped")]
    assert list(config.optimizers) == ["adam", *pairs]
    assert config.optimizers_of("epochs", "digits") == ["adam", *pairs]
    assert config.optimizers_of("epochs", "diabetes") == ["adam"]
    assert config.spec("sgd-none").label == "Gradient: Undamped"
    assert [config.spec(pair).family for pair in pairs] == ["Gradient"] * 2 + ["nadam"] * 2 + ["kfac"] * 2
    assert len({(config.spec(pair).color, config.spec(pair).line) for pair in pairs}) == len(pairs)
    assert not config.spec("sgd-none").has_damping
    assert config.spec("sgd-damped").has_damping
    used = {pair: Case(config, "epochs", "digits", pair).hyperparameters({}) for pair in pairs}
    assert used["nadam-damped"] == {"batch_size": 200, "lr_clipping": 0.1, "direction.eps": 1e-6}
    assert used["nadam-none"]["lr_clipping"] == 0.1
    assert used["kfac-none"] == {"batch_size": 200, "damping": 0.0, "adapt_damping": False}
    assert [pair for pair in pairs if config.space(pair)] == ["sgd-damped", "nadam-damped", "kfac-damped"]
    # What is resolved is a configuration again, the same one.
    assert parse_config(config.model_dump(mode="json"), "dump") == config


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"directions": {}}, "factorials.parts.directions: "),
        ({"heuristic": {}}, "factorials.parts.heuristic: unknown key"),
        ({"heuristics": {"none": {}}}, "factorials.parts.heuristics: "),
        ({"directions": {"sgd": {"direction": "gradien"}}}, "optimizers.sgd-none: 'gradien': expected module:Name"),
        ({"directions": {"sgd": {}}}, "unknown optimizer 'sgd-none': "),
        (
            {"directions": {"sgd": {"direction": "adam", "optimizer": "adamqlr:KFAC"}}},
            "factorials.parts.directions.sgd: 'optimizer' and",
        ),
        ({"datasets": ["svhn"]}, "optimizers.sgd-none.datasets: unknown 'svhn': this study has"),
    ],
    ids=["no directions", "unknown key", "one combination", "unknown direction", "nothing", "both", "datasets"],
)
def test_what_is_wrong_with_a_factorial_is_named(
    settings: dict[str, Any], changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UserError) as raised:
        with_optimizers(settings, ["adam"], factorials={"parts": {**FACTORIAL, **changes}})
    assert str(raised.value).startswith(f"study.yaml: {problem}")
    assert "\n" not in str(raised.value)


def test_a_class_of_ones_own_is_in_a_file(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "warm.py").write_text(OWN_CLASS.format(name="Warm"))
    own = {"optimizer": "warm.py:Warm", "options": {"warmth": 2.0}}
    config = with_optimizers(settings, {"warm": own})
    case = Case(config, "epochs", "digits", "warm")
    assert case.hyperparameters({}) == {"batch_size": 200, "warmth": 2.0}
    before = case.training_fingerprint({}, [0]), case.search_fingerprint()
    for wrong, problem in (
        ({**own, "options": {"warm": 2.0}}, "options: unknown option 'warm': known are lr, warmth"),
        ({"optimizer": "warm.py:Cold"}, "'warm.py:Cold': warm.py has no Cold"),
    ):
        with pytest.raises(UserError, match=rf"^study\.yaml: optimizers\.warm: {problem}$"):
            with_optimizers(settings, {"warm": wrong})
    (tmp_path / "warm.py").write_text(OWN_CLASS.format(name="Warm") + "# changed\n")
    after = case.training_fingerprint({}, [0]), case.search_fingerprint()
    assert before[0] != after[0], "the source decides results"
    assert before[1] != after[1], "the source decides results"


def test_the_source_of_a_module_of_ones_own_decides_results_and_that_of_installed_ones_does_not(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "own_lab"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "optimizers.py").write_text(OWN_CLASS.format(name="Warm"))
    monkeypatch.syspath_prepend(tmp_path)
    config = with_optimizers(settings, {"warm": {"optimizer": "own_lab.optimizers:Warm"}})
    case = Case(config, "epochs", "digits", "warm")
    before = case.training_fingerprint({}, [0])
    (package / "optimizers.py").write_text(OWN_CLASS.format(name="Warm") + "# changed\n")
    assert case.training_fingerprint({}, [0]) != before
    assert [contents_hash(path) for path in ("torch.optim:NAdam", "adamqlr:KFAC", "gradient")] == ["", "", ""]


def test_a_misspelled_class_of_the_package_is_named(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="'adamqlr:KFACC': adamqlr has no KFACC"):
        with_optimizers(settings, {"mine": {"optimizer": "adamqlr:KFACC"}})


@pytest.mark.parametrize("content", [b"class Mine(:\n", b"# \xff\nclass Mine: ...\n"], ids=["syntax", "no text"])
def test_a_file_that_is_no_python_is_one_clear_error(settings: dict[str, Any], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.py").write_bytes(content)
    with pytest.raises(UserError, match=r"^study\.yaml: optimizers\.mine: [^\n]*broken\.py': not Python: [^\n]+$"):
        with_optimizers(settings, {"mine": {"optimizer": f"{tmp_path}/broken.py:Mine"}})


def test_the_workflow_looks_at_optimizers_of_ones_own_without_pytorch(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "warm.py").write_text(OWN_CLASS.format(name="Warm"))
    own = {"warm": {"optimizer": "warm.py:Warm"}, "nadam": NADAM, "qlr_nadam": QLR_NADAM}
    study = {**settings, "optimizers": ["adam", own], "factorials": {"parts": FACTORIAL}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    code = """
import sys
from pathlib import Path
from adamqlr.figures.contents import figures_of
from adamqlr.study.case import cases_of
from adamqlr.study.config import load_config
from adamqlr.study.paths import cube_files
from adamqlr.tables.contents import tables_of

study = load_config(Path("study.yaml"))
cases = cases_of(study, "epochs")
assert {"warm", "nadam", "qlr_nadam", "kfac-damped"} <= {case.optimizer for case in cases}
for case in cases:
    case.configurations(), case.search_fingerprint()
    case.training_fingerprint({}, case.seeds)
assert len(cube_files(study)) == len(cases) and figures_of(study, "epochs", {}) and tables_of(study, "epochs", {})
sys.exit(any(name in sys.modules for name in ("matplotlib", "torch", "xarray")))
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_the_workflow_reads_the_configuration_without_pytorch() -> None:
    code = (
        "import sys; import adamqlr.figures.contents, adamqlr.tables.contents, adamqlr.study.paths, adamqlr.cli;"
        "sys.exit(any(name in sys.modules for name in ('matplotlib', 'torch', 'xarray')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_part_of_one_of_the_papers_suites_can_be_changed(settings: dict[str, Any]) -> None:
    study = parse_config(
        {**settings, "suites": {"runtime_train": {"objective": "validation_loss"}, "epochs": None}}, "here"
    )
    changed = study.suite("runtime_train")
    assert (changed.budget, changed.objective) == ("runtime", "validation_loss")
    assert study.suite("epochs").budget == "epochs"


def test_precision_decides_where_there_are_convolutions_alone(settings: dict[str, Any]) -> None:
    def fingerprints(model: str, **precision: bool) -> list[str]:
        dataset = {"digits": {"epochs": 3, "model": model}}
        study = parse_config({**settings, "datasets": dataset, "precision": precision}, "here")
        case = Case(study, "epochs", "digits", "adamqlr")
        return [case.training_fingerprint({}, [0]), case.search_fingerprint(), case.step_costs_fingerprint()]

    assert fingerprints("mlp", tf32=False) == fingerprints("mlp")
    pairs = zip(fingerprints("resnet18", tf32=False), fingerprints("resnet18"), strict=True)
    assert all(one != other for one, other in pairs)
