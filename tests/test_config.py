"""The configuration: defaults, names, and errors that say which key."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from adamqlr.errors import UserError
from adamqlr.study.config import StudyConfig, fingerprint, load_config, parse_config
from adamqlr.study.space import Distribution

ROOT = Path(__file__).resolve().parents[1]

SWEEP = {"dataset": "digits", "optimizer": "adam", "parameter": "lr", "values": [0.1, 1]}


@pytest.mark.parametrize("name", ["quickstart", "miniature", "energy", "paper"])
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
    assert len(config.seeds("svhn")) == 50
    assert len(config.seeds("rosenbrock")) == 1
    assert config.objective("runtime_train", "svhn") == "train_loss"
    assert config.objective("epochs", "rosenbrock") == "train_loss"
    assert ("rosenbrock", "adam") not in config.pairs("runtime_train")
    assert config.dataset("cifar10").runtime == 3600
    assert ("uci_energy", "kfac") in config.pairs("epochs")
    assert ("rosenbrock", "kfac") in config.pairs("epochs")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"trainin": {}}, "trainin: unknown key"),
        ({"training": {"seed": 3}}, r"training\.seed: unknown key"),
        ({"training": {"seeds": 0}}, r"training\.seeds: Input should be greater than 0"),
        ({"datasets": {"digits": {"epoch": 3}}}, r"datasets\.digits\.epoch: unknown key"),
        ({"datasets": ["mnist"]}, "unknown dataset 'mnist': known are rosenbrock"),
        ({"datasets": {"my/own": {"path": "x"}}}, "dataset name 'my/own'"),
        ({"optimizers": ["adamw"]}, "unknown optimizer 'adamw': known are sgd_minimal"),
        ({"optimizers": {"adam": {"space": {"lr": {"normal": [0, 1]}}}}}, r"optimizers\.adam\.space\.lr\.kind"),
        (
            {"optimizers": {"adam": {"space": {"lr": {"loguniform": [0, 1]}}}}},
            r"optimizers\.adam\.space\.lr: loguniform needs 0 < low <= high",
        ),
        ({"suites": {"mine": {"budget": "days", "objective": "train_loss"}}}, r"suites\.mine\.budget"),
        ({"suites": ["mine"]}, r"suites\.mine\.budget: Field required"),
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


def test_names_that_the_study_lacks_are_refused(study: StudyConfig) -> None:
    for lookup, problem in (
        (lambda: study.dataset("svhn"), "unknown dataset 'svhn': this study has digits"),
        (lambda: study.optimizer("adam_eps"), "unknown optimizer 'adam_eps': this study has adam"),
        (lambda: study.suite("runtime_train"), "unknown suite 'runtime_train': this study has epochs"),
    ):
        with pytest.raises(UserError, match=problem):
            lookup()


def test_rosenbrock_has_no_batch_size_to_tune(study: StudyConfig) -> None:
    assert set(study.space("adam", "rosenbrock")) == {"lr"}
    assert set(study.space("adam", "digits")) == {"lr", "batch_size"}


def test_the_environment_names_the_data_folder(study: StudyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADAMQLR_DATA_DIR", raising=False)
    assert study.data_folder == Path("data")
    monkeypatch.setenv("ADAMQLR_DATA_DIR", "/somewhere")
    assert study.data_folder == Path("/somewhere")


def test_fingerprints_tell_settings_apart() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


@pytest.mark.parametrize(
    ("kind", "values"), [("choice", []), ("uniform", [1]), ("uniform", [2, 1]), ("uniform", ["a", 1])]
)
def test_impossible_distributions_are_refused(kind: str, values: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"needs|at least one"):
        Distribution(kind=kind, values=values)


def test_distributions_are_written_in_yaml(settings: dict[str, Any]) -> None:
    text = "{adam: {space: {lr: {uniform: [0, 1]}, batch_size: {choice: [8, 16]}}}}"
    space = parse_config({**settings, "optimizers": yaml.safe_load(text)}, "t").space("adam")
    assert space["lr"].describe() == "uniform 0 … 1"
    assert space["batch_size"].values == (8, 16)


def test_the_workflow_reads_the_configuration_without_pytorch() -> None:
    code = (
        "import sys; import adamqlr.figures.catalog, adamqlr.tuning.search, adamqlr.training.job, adamqlr.cli;"
        "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
