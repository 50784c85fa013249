"""Embedded, torchvision's and fetched datasets, the networks and their starts."""

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import pytest
import torch
from sklearn import datasets
from torch import nn

from adamqlr.errors import UserError
from adamqlr.problems import images, uci
from adamqlr.problems.embedded import read_diabetes, read_digits
from adamqlr.problems.models import mlp
from adamqlr.problems.problem import initial_model, load_problem
from adamqlr.problems.rosenbrock_function import objective
from adamqlr.stages.fetch import fetch
from adamqlr.study.config import parse_config
from adamqlr.study.datasets import DATASETS
from tests.problems.in_memory import parts_of, rows_in

CPU = torch.device("cpu")


def study(*datasets: str, **settings: Any) -> Any:
    return parse_config({"name": "t", "datasets": list(datasets), "optimizers": ["adam_untuned"], **settings}, "test")


@pytest.mark.parametrize(
    ("key", "sizes", "shape"), [("digits", [1258, 269, 270], (64,)), ("diabetes", [310, 66, 66], (10,))]
)
def test_embedded_datasets(key: str, sizes: list[int], shape: tuple[int, ...]) -> None:
    problem, again, other = (load_problem(key, config, CPU) for config in (study(key), study(key), study(key, seed=1)))
    parts = parts_of(problem)
    inputs = parts[0].inputs
    assert [len(rows) for rows in parts] == sizes
    assert inputs.shape[1:] == shape
    assert problem.has_accuracy == (key == "digits")
    assert torch.equal(inputs, rows_in(again.train).inputs)
    assert not torch.equal(inputs, rows_in(other.train).inputs)


@pytest.mark.parametrize(
    ("read", "load"), [(read_digits, datasets.load_digits), (read_diabetes, datasets.load_diabetes)]
)
def test_embedded_tables_are_scikit_learns_to_the_last_bit(read: Any, load: Any) -> None:
    for ours, theirs in zip(read(), load(return_X_y=True), strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.tobytes() == theirs.tobytes()


def test_rosenbrock_is_its_formula_and_starts_where_the_paper_does() -> None:
    problem = load_problem("rosenbrock", study("rosenbrock"), CPU)
    model = initial_model(problem, 0)
    x, y = model.get_parameter("position").tolist()
    assert (x, y) == (1.0, -1.0)
    train = rows_in(problem.train)
    loss = 0.5 * nn.functional.mse_loss(model(train.inputs), train.targets)
    assert loss.item() == pytest.approx(((1 - x) ** 2 + 100 * (y - x**2) ** 2) / 4)
    assert loss.item() == pytest.approx(objective(np.array(x), np.array(y)))
    starts = [initial_model(problem, seed, tuning=True).get_parameter("position") for seed in (0, 0, 1)]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    assert problem.validation is None
    assert problem.test is None


def test_perceptrons_start_as_in_the_papers_code() -> None:
    torch.manual_seed(0)
    network = mlp([400, 300, 10])
    assert [type(layer) for layer in network] == [nn.Linear, nn.ReLU, nn.Linear]
    sigma = 1 / math.sqrt(400)
    weight = network.get_parameter("0.weight")
    assert float(weight.abs().max()) <= 2 * sigma
    # The deviation of a normal distribution truncated at 2σ is 0.8796 σ.
    assert float(weight.std()) == pytest.approx(0.8796 * sigma, rel=0.01)
    assert torch.count_nonzero(network.get_parameter("0.bias")) == 0


def test_a_seed_decides_the_start_and_leaves_the_global_generator_alone() -> None:
    problem = load_problem("digits", study("digits"), CPU)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second, other = (initial_model(problem, seed).get_parameter("0.weight") for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def fashion_mnist_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Synthetic rows in torchvision's layout, and splits to match."""
    raw = folder / "fashion_mnist" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for part, rows in (("train", 60), ("t10k", 20)):
        write_idx(raw / f"{part}-images-idx3-ubyte", generator.integers(0, 256, (rows, 28, 28)))
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(rows) % 10)
    known = images.IMAGE_SETS["fashion_mnist"]
    monkeypatch.setitem(images.IMAGE_SETS, "fashion_mnist", known._replace(train=50))
    monkeypatch.setenv("ADAMQLR_DATA_DIR", str(folder))


def test_fashion_mnist_is_read_as_torchvision_stores_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fashion_mnist_files(tmp_path, monkeypatch)
    problem = load_problem("fashion_mnist", study("fashion_mnist"), CPU)
    train, validation, test = parts_of(problem)
    assert train.inputs.shape == (50, 784)
    assert [len(validation), len(test)] == [10, 20]
    assert torch.equal(validation.targets, torch.arange(10))
    assert initial_model(problem, 0)(test.inputs).shape == (20, 10)
    assert images.fetch("fashion_mnist", tmp_path) == [tmp_path / "fashion_mnist"]


class _Part:
    def __init__(self, data: np.ndarray, **targets: Any) -> None:
        self.data = data
        vars(self).update(targets)


def test_color_images_come_channels_first(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {
        "svhn": _Part(np.zeros((30, 3, 32, 32), dtype=np.uint8), labels=np.arange(30) % 10),
        "cifar10": _Part(np.zeros((30, 32, 32, 3), dtype=np.uint8), targets=list(np.arange(30) % 10)),
    }
    for key, part in parts.items():
        monkeypatch.setitem(images.IMAGE_SETS, key, images.ImageSet(lambda *_, part=part: part, 20))
        problem = load_problem(key, study(key), CPU)
        assert rows_in(problem.train).inputs.shape == (20, 3, 32, 32)
        assert len(rows_in(problem.validation)) == 10
        assert problem.augmentation == ("crop_flip" if key == "cifar10" else "none")


@pytest.mark.parametrize("key", ["fashion_mnist", "svhn", "cifar10"])
def test_missing_images_are_named(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAMQLR_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match=rf"{key}.*missing or damaged.*adamqlr fetch"):
        load_problem(key, study(key), CPU)


def test_damaged_images_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fashion_mnist_files(tmp_path, monkeypatch)
    damaged = tmp_path / "fashion_mnist" / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.raises(UserError, match="missing or damaged"):
        load_problem("fashion_mnist", study("fashion_mnist"), CPU)


@pytest.mark.parametrize("existed", [False, True])
def test_images_that_cannot_be_downloaded_leave_no_folder_of_their_own(
    existed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(root: Path, train: bool, download: bool) -> Any:
        """As torchvision does: the folder first."""
        if not download:
            raise RuntimeError("Dataset not found.")
        root.mkdir(exist_ok=True)
        raise OSError("no way out")

    monkeypatch.setitem(images.IMAGE_SETS, "svhn", images.ImageSet(offline, 20))
    root = tmp_path / "svhn"
    if existed:
        root.mkdir()
    with pytest.raises(UserError, match=rf"^{root}: svhn cannot be downloaded \(no way out\); see `adamqlr fetch`$"):
        images.fetch("svhn", tmp_path)
    assert root.exists() == existed


def test_a_table_that_is_there_is_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAMQLR_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(pooch, "retrieve", lambda *_, **__: pytest.fail("download"))
    path = tmp_path / "uci_energy" / "data.txt"
    path.parent.mkdir()
    path.write_text("1 2\n3 4\n")
    assert uci.fetch("uci_energy", tmp_path) == [path]


def test_a_receipt_names_the_files_that_hold_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fashion_mnist_files(tmp_path, monkeypatch)
    path = tmp_path / "uci_energy" / "data.txt"
    path.parent.mkdir()
    path.write_text("1 2\n3 4\n")
    for key, text in (("fashion_mnist", "fashion_mnist\n"), ("uci_energy", "data.txt\n"), ("digits", "")):
        fetch(key, study(key), tmp_path / f"{key}.txt")
        assert (tmp_path / f"{key}.txt").read_text() == text


def test_a_download_that_fails_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("ADAMQLR_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(pooch, "retrieve", unreachable)
    with pytest.raises(UserError, match=r"data\.txt: cannot be downloaded from https://\S+ \(no route to host\)"):
        fetch("uci_energy", study("uci_energy"), tmp_path / "receipt.txt")
    assert not (tmp_path / "receipt.txt").exists()


@pytest.mark.network
@pytest.mark.parametrize(
    ("key", "fetcher"), [(key, spec.fetcher) for key, spec in DATASETS.items() if spec.fetcher and key != "imagenet"]
)
def test_downloads(key: str, fetcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAMQLR_DATA_DIR", str(tmp_path))
    module, _, name = fetcher.partition(":")
    assert all(path.exists() for path in getattr(import_module(module), name)(key, tmp_path))
    assert len(load_problem(key, study(key), CPU).train) > 500
