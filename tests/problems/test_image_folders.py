"""ImageNet's layout on small images that are made up here: reading, augmentation, resuming, and a user's mistakes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as transforms

from adamqlr.errors import UserError
from adamqlr.problems.examples import BatchStream
from adamqlr.problems.image_stream import ImageStream
from adamqlr.problems.imagenet import fetch
from adamqlr.problems.problem import Problem, initial_model, load_problem
from adamqlr.results.runs import read_runs
from adamqlr.study.config import StudyConfig, parse_config
from adamqlr.study.optimizers import OPTIMIZERS
from adamqlr.training.optimizers import make_optimizer

CPU = torch.device("cpu")
CLASSES = ("dark", "light")
COUNTS = {"train": 9, "val": 5, "test": 4}
MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def next_batch(stream: BatchStream) -> tuple[Tensor, Tensor]:
    return stream.gather(*stream.next_selection())


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write made-up images of two classes, dark and light noise, some of them gray or of another shape."""
    monkeypatch.setenv("ADAMQLR_DATA_DIR", str(tmp_path))
    generator = np.random.default_rng(0)
    folder = tmp_path / "imagenet"
    for part, count in COUNTS.items():
        for number, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            for image in range(count):
                shape = (40, 56, 3) if image % 3 else (36, 36)
                pixels = generator.integers(128 * number, 128 * number + 128, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{image}.png")
    return folder


def settings(**changes: Any) -> dict[str, Any]:
    datasets = {"imagenet": {"image_size": 32, "batch_size": 6, "epochs": 1, **changes}}
    training = {"checkpoint_seconds": 0.01}
    optimizers = ["adamqlr_untuned", "kfac_untuned"]
    return {"name": "t", "device": "cpu", "datasets": datasets, "optimizers": optimizers, "training": training}


def study(**changes: Any) -> StudyConfig:
    return parse_config(settings(**changes), "test")


def load(**changes: Any) -> Problem:
    return load_problem("imagenet", study(**changes), CPU)


def parts_of(problem: Problem) -> list[ImageStream]:
    parts = [problem.train, problem.validation, problem.test]
    return [part for part in parts if isinstance(part, ImageStream)]


def test_images_are_evaluated_once_in_order_as_torchvision_would_cut_them(root: Path) -> None:
    train, validation, test = parts_of(load())
    assert [len(rows) for rows in (train, validation, test)] == [18, 10, 8]
    images, classes = (torch.cat(parts) for parts in zip(*test.chunks(), strict=True))
    assert classes.tolist() == [0] * 4 + [1] * 4
    names = [root / "test" / name / f"{number}.png" for name in CLASSES for number in range(4)]
    for image, name in zip(images, names, strict=True):
        resized = transforms.resize(Image.open(name).convert("RGB"), 37)
        expected = transforms.to_tensor(transforms.center_crop(resized, 32))
        expected = (expected - MEAN.view(3, 1, 1)) / DEVIATION.view(3, 1, 1)
        torch.testing.assert_close(image, expected, rtol=1e-5, atol=1e-5)


def test_every_image_once_an_epoch_in_a_new_order(root: Path) -> None:
    # A class number for each image tells which one it is.
    images, *_ = parts_of(load(augmentation="none"))
    numbered = ImageStream(images.paths, np.arange(18), images.size)
    stream = numbered.batches(4, 0, "none")
    assert (stream.batch_size, stream.steps_per_epoch) == (4, 5)
    epochs = [torch.cat([next_batch(stream)[1] for _ in range(5)]).tolist() for _ in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(18))] * 2
    assert epochs[0] != epochs[1]
    assert numbered.batches(50, 0, "none").batch_size == 18


@pytest.mark.parametrize("augmentation", ["none", "resized_crop_flip"])
def test_a_seed_decides_batches_and_a_stream_can_be_taken_up_anywhere(root: Path, augmentation: str) -> None:
    images = load().train
    stream, again, resumed, other = (images.batches(6, seed, augmentation) for seed in (0, 0, 0, 1))
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = next_batch(stream)
    assert torch.equal(torch.rand(1), expected), "the generator that training uses is left alone"
    torch.testing.assert_close(first, next_batch(again), rtol=0, atol=0)
    assert not torch.equal(first[0], next_batch(other)[0])
    for _ in range(3):
        next_batch(stream)
    resumed.load_state_dict(stream.state_dict())
    for _ in range(3):
        torch.testing.assert_close(next_batch(stream), next_batch(resumed), rtol=0, atol=0)


def test_augmentation_differs_from_epoch_to_epoch(root: Path) -> None:
    images, *_ = parts_of(load())
    single = ImageStream(images.paths[:2], images.classes[:2], images.size)
    stream = single.batches(2, 0, "resized_crop_flip")
    first, second = (next_batch(stream)[0] for _ in range(2))
    assert first.shape == (2, 3, 32, 32)
    assert not any(torch.equal(a, b) for a in first for b in second)


def without_class(root: Path) -> None:
    for image in (root / "val" / "light").iterdir():
        image.unlink()
    (root / "val" / "light").rmdir()


def without_images(root: Path) -> None:
    for image in (root / "test" / "light").iterdir():
        image.unlink()


def without_classes(root: Path) -> None:
    for name in CLASSES:
        (root / "train" / name).rename(root / name)


MISTAKES: dict[str, Callable[[Path], Any]] = {
    r"imagenet/val: no such folder; ImageNet cannot be downloaded": lambda root: (root / "val").rename(root / "valid"),
    r"imagenet/val: its classes are not those of .*imagenet/train: 'light' is in one of them only": without_class,
    r"imagenet/test: Found no valid file for the classes light": without_images,
    r"imagenet/train: no folders of classes in it": without_classes,
}


@pytest.mark.parametrize("problem", MISTAKES)
def test_a_wrong_layout_is_named(root: Path, problem: str) -> None:
    MISTAKES[problem](root)
    with pytest.raises(UserError, match=problem) as raised:
        load()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("changes", [{"model": "mlp"}, {"loss": "half_mse"}, {"augmentation": "crop_flip"}])
def test_settings_that_do_not_suit_images_are_refused(root: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="'imagenet': it needs a model of resnet18, resnet50, loss cross_entropy"):
        load(**changes)


def test_what_is_no_image_is_named_when_it_is_read(root: Path) -> None:
    (root / "val" / "dark" / "3.png").write_text("no image")
    _, validation, _ = parts_of(load())
    with pytest.raises(UserError, match=r"val/dark/3\.png: not a readable image") as raised:
        list(validation.chunks())
    assert "\n" not in str(raised.value)


def test_fetching_checks_the_folders(root: Path) -> None:
    assert fetch("imagenet", root.parent) == [root]
    (root / "test").rename(root / "tests")
    with pytest.raises(UserError, match="imagenet/test: no such folder"):
        fetch("imagenet", root.parent)


@pytest.mark.parametrize("key", ["adamqlr_untuned", "kfac_untuned"])
def test_a_step_of_a_resnet_50(root: Path, key: str) -> None:
    problem = load()
    model = initial_model(problem, 0)
    assert len(model.get_parameter("fc.bias")) == 2
    optimizer = make_optimizer(OPTIMIZERS[key], model, problem.loss, {})
    info = optimizer.step(*next_batch(problem.batches(8, 0)))
    assert torch.isfinite(info.loss)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def command(root: Path, output: Path, epochs: int = 1) -> list[str]:
    config = output.with_name("study.yaml")
    config.write_text(yaml.safe_dump(settings(model="resnet18", epochs=epochs), sort_keys=False))
    pair = ["--dataset", "imagenet", "--optimizer", "adamqlr_untuned", "--set", "optimizer.batch_size=6"]
    program = [sys.executable, "-c", "from adamqlr.cli import main; main()"]
    return [*program, "train", "--config", str(config), *pair, "--output", str(output)]


@pytest.mark.slow
def test_training_that_all_processes_are_asked_to_stop_goes_on_to_the_same_numbers(root: Path, tmp_path: Path) -> None:
    """As Slurm does it: readers get the signal too, and must not take the run with them before its checkpoint."""
    outputs = [tmp_path / name / "runs.nc" for name in ("undisturbed", "stopped")]
    for output in outputs:
        output.parent.mkdir()
    undisturbed, stopped = (command(root, output, epochs=2) for output in outputs)
    subprocess.run(undisturbed, check=True, timeout=120)
    checkpoint = outputs[1].with_name(".runs.nc.checkpoint")
    process = subprocess.Popen(stopped, start_new_session=True, stderr=subprocess.PIPE)
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGTERM)
    # The log's end is the end of all processes that write to it: no reader may outlive the run.
    _, log = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM, log.decode()
    subprocess.run(stopped, check=True, timeout=120)
    first, second = (read_runs(output) for output in outputs)
    for name in ("value", "step"):
        np.testing.assert_array_equal(first[name], second[name])
    loss = first["value"].sel(metric="train_loss").values[0, 1:]
    assert np.isfinite(loss).all()
    assert loss[-3:].mean() < loss[:3].mean(), "light is learned from dark"


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_file_that_is_no_image_ends_a_run_at_once_with_one_line(root: Path, tmp_path: Path, part: str) -> None:
    (root / part / "light" / "1.png").write_text("no image")
    done = subprocess.run(command(root, tmp_path / "runs.nc"), capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if "rror" in line]
    assert len(errors) == 1
    assert f"adamqlr: error: {root / part / 'light' / '1.png'}: not a readable image" in errors[0]
    assert "Traceback" not in done.stderr
