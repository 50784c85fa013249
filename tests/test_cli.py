"""The command line: what users type, and one clear line for each mistake."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from adamqlr import cli
from adamqlr.results.runs import read_runs

ConfigFile = Callable[..., Path]


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["adamqlr", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0), capsys.readouterr().err


@pytest.fixture
def adamqlr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    return lambda *arguments: run(capsys, monkeypatch, *arguments)


def test_help_answers_at_once_for_every_command() -> None:
    for command in cli.cli.commands:
        done = subprocess.run(
            [sys.executable, "-m", "adamqlr", command, "--help"], capture_output=True, text=True, timeout=20, check=True
        )
        assert "Usage: adamqlr" in done.stdout


def test_from_training_to_a_figure(
    adamqlr: Callable[..., tuple[int, str]], config_file: ConfigFile, tmp_path: Path
) -> None:
    config, runs = config_file(), tmp_path / "runs.nc"
    pair = ("--config", config, "--dataset", "digits", "--optimizer", "adamqlr_untuned")
    assert adamqlr("train", *pair, "--seeds", "0,2", "--set", "dataset.epochs=2", "--output", runs)[0] == 0
    assert read_runs(runs)["seed"].values.tolist() == [0, 2]
    assert read_runs(runs)["step"].values[0, -1] == 2
    assert adamqlr("aggregate", runs, "--output", tmp_path / "cube.nc")[0] == 0
    assert adamqlr("aggregate", tmp_path / "cube.nc", "--output", tmp_path / "study.nc")[0] == 0
    code, problem = adamqlr("aggregate", "--output", tmp_path / "study.nc")
    assert (code, "give the inputs, or the study's --config" in problem) == (2, True)
    study = ("--study", tmp_path / "study.nc", "--suite", "epochs")
    assert adamqlr("figures", "loss", *study, "--output", tmp_path / "loss")[0] == 0
    assert adamqlr("tables", "final_results", *study, "--output", tmp_path / "final")[0] == 0
    assert (tmp_path / "loss.pdf").exists()
    assert (tmp_path / "final.md").exists()
    assert adamqlr("claims", *study[:2], "--config", config, "--output", tmp_path / "claims")[0] == 0
    assert "what to add to the configuration" in (tmp_path / "claims.md").read_text()
    assert adamqlr("info", runs)[0] == 0


@pytest.mark.parametrize("command", ["train", "tune"])
def test_an_output_without_a_place_is_refused_before_anything_is_trained(
    command: str, adamqlr: Callable[..., tuple[int, str]], config_file: ConfigFile
) -> None:
    optimizer = "adam" if command == "tune" else "adam_untuned"
    pair = ("--config", config_file(), "--dataset", "digits", "--optimizer", optimizer)
    code, error = adamqlr(command, *pair, "--output", "/proc/nope/a.nc")
    assert code == 2
    assert error.strip().startswith("adamqlr: error: /proc/nope/a.nc: cannot be written: ")


def test_a_search_refuses_hyperparameters(
    adamqlr: Callable[..., tuple[int, str]], config_file: ConfigFile, tmp_path: Path
) -> None:
    pair = ("--config", config_file(), "--dataset", "digits", "--optimizer", "adam")
    code, error = adamqlr("tune", *pair, "--set", "optimizer.lr=1e-4", "--output", tmp_path / "shards" / "0.nc")
    assert code == 2
    cure = "fix it under 'optimizers' in the configuration instead"
    assert error.strip() == f"adamqlr: error: --set optimizer.NAME: {cure}"


def test_tuned_hyperparameters_are_read_and_settings_come_first(
    adamqlr: Callable[..., tuple[int, str]], config_file: ConfigFile, tmp_path: Path
) -> None:
    config, shard = config_file(), tmp_path / "shards" / "0.nc"
    pair = ("--config", config, "--dataset", "diabetes", "--optimizer", "sgd_full")
    assert adamqlr("tune", *pair, "--output", shard)[0] == 0
    best = tmp_path / "best.yaml"
    assert adamqlr("select", shard, "--output", tmp_path / "trials.nc", "--best", best)[0] == 0
    output = tmp_path / "runs.nc"
    assert adamqlr("train", *pair, "--best", best, "--set", "optimizer.lr=1e-4", "--output", output)[0] == 0
    used = yaml.safe_load(read_runs(output).attrs["hyperparameters"])
    assert used["lr"] == 1e-4
    assert used["momentum"] == yaml.safe_load(best.read_text())["hyperparameters"]["momentum"]


def arguments(config_path: Path, output: Path, **changes: str) -> list[object]:
    options = {"--config": config_path, "--dataset": "digits", "--optimizer": "adam_untuned", "--output": output}
    options |= {f"--{name}": value for name, value in changes.items()}
    return [part for pair in options.items() for part in pair]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"dataset": "mnist"}, "unknown dataset 'mnist': this study has digits, diabetes, rosenbrock"),
        ({"optimizer": "adamw"}, "unknown optimizer 'adamw': this study has"),
        ({"suite": "runtime_train"}, "unknown suite 'runtime_train'"),
        ({"set": "optimizer.lrr=1"}, "optimizer 'adam_untuned': unknown hyperparameter 'lrr'"),
        (
            {"optimizer": "adamqlr_untuned", "set": "optimizer.damping=-1"},
            "optimizer 'adamqlr_untuned': damping must be",
        ),
        ({"optimizer": "kfac_unadaptive"}, "optimizer 'kfac_unadaptive': no value for lr, momentum"),
        ({"set": "dataset.epoch=1"}, "datasets.digits.epoch: unknown key"),
        ({"set": "optimizer.lr"}, "--set optimizer.lr: expected optimizer.NAME=VALUE"),
        ({"set": "training"}, "--set training: expected section.key=value"),
        (
            {"optimizer": "sgd_full"},
            "optimizer 'sgd_full': no value for lr, momentum, weight_decay: give tuned ones with --best",
        ),
        ({"best": "none.yaml"}, "none.yaml: no such file"),
        ({"config": "none.yaml"}, "none.yaml: no such file"),
        ({"seeds": "3-x"}, "'3-x' is not like 0-9"),
        ({"seeds": "1,1"}, "holds no seed, or one twice"),
    ],
)
def test_mistakes_end_with_one_line_and_exit_code_2(
    adamqlr: Callable[..., tuple[int, str]],
    config_file: ConfigFile,
    tmp_path: Path,
    changes: dict[str, str],
    problem: str,
) -> None:
    output = tmp_path / "runs.nc"
    code, text = adamqlr("train", *arguments(config_file(), output, **changes))
    assert code == 2
    assert problem in text
    assert "Traceback" not in text
    assert len([line for line in text.splitlines() if "rror" in line]) == 1
    assert not output.exists()


@pytest.mark.parametrize(
    ("command", "dataset", "problem"),
    [
        ("train", "penn_treebank", "penn_treebank/ptb.train.txt: no such file; `adamqlr fetch` downloads"),
        ("train", "imagenet", "imagenet/train: no such folder; ImageNet cannot be downloaded: put a folder of images"),
        ("fetch", "imagenet", "imagenet/train: no such folder; ImageNet cannot be downloaded: put a folder of images"),
    ],
)
def test_missing_data_is_named(
    adamqlr: Callable[..., tuple[int, str]],
    config_file: ConfigFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    dataset: str,
    problem: str,
) -> None:
    monkeypatch.setenv("ADAMQLR_DATA_DIR", str(tmp_path / "data"))
    options = arguments(config_file(datasets=[dataset]), tmp_path / "output", dataset=dataset)
    code, text = adamqlr(command, *(options if command == "train" else options[:4] + options[6:]))
    assert (code, len(text.splitlines())) == (2, 1), text
    assert text.startswith(f"adamqlr: error: {tmp_path / 'data'}/{problem}")


SWEEP = {"dataset": "digits", "optimizer": "adamqlr_untuned", "parameter": "damping", "values": [0.01, 1]}


def test_a_value_of_a_sensitivity_study_is_trained_as_said(
    adamqlr: Callable[..., tuple[int, str]], config_file: ConfigFile, tmp_path: Path
) -> None:
    stepping = {**SWEEP, "parameter": "damping_increase", "reciprocal": "damping_decrease", "values": [1, 4]}
    config, output = config_file(sensitivity={"damping": SWEEP, "stepping": stepping}), tmp_path / "runs.nc"
    assert adamqlr("sweep", "damping", "--config", config, "--value", "0.01", "--output", output)[0] == 0
    attrs = read_runs(output).attrs
    assert (attrs["sweep"], attrs["sweep_parameter"], attrs["sweep_point"]) == ("damping", "damping", "0.01")
    assert yaml.safe_load(attrs["hyperparameters"])["damping"] == 0.01
    assert adamqlr("sweep", "stepping", "--config", config, "--value", "4", "--output", output)[0] == 0
    used = yaml.safe_load(read_runs(output).attrs["hyperparameters"])
    assert (used["damping_increase"], used["damping_decrease"]) == (4, 0.25)
    for arguments, problem in (
        (("lr", "--value", "1"), "unknown sensitivity study 'lr': this study has damping, stepping"),
        (("damping", "--value", "2"), "sensitivity study 'damping': no value 2: there are 0.01, 1"),
    ):
        code, text = adamqlr("sweep", *arguments, "--config", config, "--output", output)
        assert (code, problem in text) == (2, True), text


def test_a_checkpoint_of_another_configuration_is_kept_until_the_output_is_there(
    adamqlr: Callable[..., tuple[int, str]],
    config_file: ConfigFile,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    output = tmp_path / "runs.nc"
    checkpoint = tmp_path / ".runs.nc.checkpoint"
    torch.save({"identity": "of another", "state": {}}, checkpoint)
    code, _ = adamqlr("train", *arguments(config_file(), output))
    name = ".runs.nc.checkpoint: of another configuration, kept as .runs.nc.checkpoint-of anoth until"
    assert (code, name in caplog.text) == (0, True)
    assert [path.name for path in tmp_path.glob("*runs*")] == ["runs.nc"]


def test_what_fails_overwrites_nothing(
    adamqlr: Callable[..., tuple[int, str]], config_file: ConfigFile, tmp_path: Path
) -> None:
    output = tmp_path / "runs.nc"
    assert adamqlr("train", *arguments(config_file(), output))[0] == 0
    written = output.read_bytes()
    code, text = adamqlr("train", *arguments(config_file(), output, set="dataset.path=none.npz"))
    assert (code, "none.npz: no such file" in text) == (2, True)
    assert output.read_bytes() == written
    (tmp_path / "text.nc").write_text("no result")
    for command in (
        ("info", tmp_path / "text.nc"),
        ("aggregate", tmp_path / "text.nc", "--output", output),
        ("select", tmp_path / "text.nc", "--output", output, "--best", tmp_path / "b.yaml"),
        ("figures", "loss", "--study", output, "--suite", "epochs", "--output", tmp_path / "f"),
    ):
        code, text = adamqlr(*command)
        assert code == 2, command
        assert "adamqlr: error: " in text
        assert output.read_bytes() == written


@pytest.mark.parametrize(("shard", "problem"), [("2/2", "0 <= k < K"), ("x", "is not k/K")])
def test_shards_are_checked(
    adamqlr: Callable[..., tuple[int, str]], config_file: ConfigFile, tmp_path: Path, shard: str, problem: str
) -> None:
    code, text = adamqlr("tune", *arguments(config_file(), tmp_path / "0.nc", optimizer="adam", shard=shard))
    assert code == 2
    assert problem in text
    code, text = adamqlr("tune", *arguments(config_file(), tmp_path / "0.nc"))
    assert (code, "nothing to tune" in text) == (2, True)


def test_one_of_several_shards_does_not_choose(
    adamqlr: Callable[..., tuple[int, str]], config_file: ConfigFile, tmp_path: Path
) -> None:
    part = {"optimizer": "adam", "shard": "0/2", "best": str(tmp_path / "best.yaml")}
    code, text = adamqlr("tune", *arguments(config_file(), tmp_path / "0.nc", **part))
    assert (code, "--best: this is one of 2 shards; `adamqlr select` chooses from all of them" in text) == (2, True)
    assert not list(tmp_path.glob("*.nc"))


def test_images_of_ones_own_train_a_resnet_from_a_few_lines(
    adamqlr: Callable[..., tuple[int, str]], data_folder: Path, tmp_path: Path
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(
        "name: mine\n"
        "datasets:\n"
        "  cifar_subset: {path: cifar10/cifar10_subset.npz, model: resnet18, loss: cross_entropy, epochs: 1,\n"
        "    batch_size: 64, augmentation: crop_flip}\n"
        "optimizers: [adamqlr_untuned]\n"
    )
    output = tmp_path / "runs.nc"
    small = tmp_path / "small.npz"
    with np.load(data_folder / "cifar10" / "cifar10_subset.npz") as arrays:
        np.savez(small, **{name: arrays[name][:150] for name in arrays})
    code, text = adamqlr(
        "train",
        *("--config", config, "--dataset", "cifar_subset", "--optimizer", "adamqlr_untuned", "--output", output),
        *("--set", f"dataset.path={small}", "--set", "optimizer.batch_size=64"),
    )
    assert code == 0, text
    runs = read_runs(output)
    assert runs["step"].values[0].tolist() == [0, 1, 2]
    assert np.isfinite(runs["value"].sel(metric="test_loss")).all()


@pytest.mark.parametrize(("optimizer", "tuned"), [("adam", "lr"), ("adamqlr", "damping"), ("kfac", "damping")])
def test_what_is_tuned_does_not_train_untuned_under_its_name(
    optimizer: str, tuned: str, adamqlr: Callable[..., tuple[int, str]], config_file: ConfigFile, tmp_path: Path
) -> None:
    output = tmp_path / "runs.nc"
    options = arguments(config_file(optimizers=[optimizer]), output, optimizer=optimizer)
    code, text = adamqlr("train", *options)
    assert code == 2
    assert f"optimizer '{optimizer}': no value for " in text
    assert tuned in text
    assert not output.exists()
    assert adamqlr("train", *options, "--set", f"optimizer.{tuned}=0.01")[0] == 0
