"""Files of one's own: arrays, images, labels."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adamqlr.errors import UserError
from adamqlr.problems.problem import initial_model, load_problem
from adamqlr.study.config import StudyConfig, parse_config
from tests.problems.in_memory import parts_of, rows_in

CPU = torch.device("cpu")
SIZES = {"train": 40, "test": 12}


def arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "x_train": generator.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8),
        "y_train": np.arange(40) % 4,
        "x_test": generator.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8),
        "y_test": np.arange(12) % 4,
    }


def study(path: Path, **settings: Any) -> StudyConfig:
    dataset = {"path": str(path), "loss": "cross_entropy", "epochs": 1, "batch_size": 8, **settings}
    return parse_config({"name": "t", "datasets": {"mine": dataset}, "optimizers": ["adam_untuned"]}, "test")


def save(tmp_path: Path, **content: Any) -> Path:
    path = tmp_path / "mine.npz"
    np.savez(path, **content)
    return path


def test_images_with_channels_first_or_last(tmp_path: Path) -> None:
    last = arrays()
    first = {name: a.transpose(0, 3, 1, 2) if a.ndim == 4 else a for name, a in last.items()}
    problems = [load_problem("mine", study(save(tmp_path, **a), model="resnet18"), CPU) for a in (last, first)]
    train, validation, test = parts_of(problems[0])
    assert torch.equal(train.inputs, rows_in(problems[1].train).inputs)
    assert train.inputs.shape == (34, 3, 8, 8)
    assert len(validation) == 6
    outputs = initial_model(problems[0], 0).eval()(test.inputs)
    assert outputs.shape == (12, 4)
    per_channel = torch.cat([train.inputs, validation.inputs]).mean((0, 2, 3))
    torch.testing.assert_close(per_channel, torch.zeros(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [2, 5, 13])
def test_images_may_have_other_channels_than_colors(tmp_path: Path, channels: int) -> None:
    generator = np.random.default_rng(0)
    first = {**arrays(), **{f"x_{part}": generator.random((n, channels, 8, 8)) for part, n in SIZES.items()}}
    last = {name: a.transpose(0, 2, 3, 1) if a.ndim == 4 else a for name, a in first.items()}
    found = [
        parts_of(load_problem("mine", study(save(tmp_path, **a), model="resnet18"), CPU))[0].inputs
        for a in (first, last)
    ]
    assert torch.equal(*found)
    assert found[0].shape == (34, channels, 8, 8)


@pytest.mark.parametrize("shape", [(6, 8, 5), (8, 8, 8), (5, 6, 8)])
def test_images_whose_channels_are_unclear_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    content = {**arrays(), **{f"x_{part}": np.ones((n, *shape)) for part, n in SIZES.items()}}
    with pytest.raises(UserError, match=re.escape(f"images of shape {shape} may have their channels first or last")):
        load_problem("mine", study(save(tmp_path, **content), model="resnet18"), CPU)


def test_a_perceptron_flattens_images_and_standardizes_pixels(tmp_path: Path) -> None:
    train, validation, _ = parts_of(load_problem("mine", study(save(tmp_path, **arrays())), CPU))
    assert train.inputs.shape == (34, 192)
    together = torch.cat([train.inputs, validation.inputs])
    torch.testing.assert_close(together.mean(0), torch.zeros(192), atol=1e-5, rtol=0)


def test_real_targets_of_several_columns(tmp_path: Path) -> None:
    content = {**arrays(), "y_train": np.eye(40, 2), "y_test": np.eye(12, 2)}
    problem = load_problem("mine", study(save(tmp_path, **content), loss="half_mse"), CPU)
    train = rows_in(problem.train)
    assert train.targets.shape == (34, 2)
    assert not problem.has_accuracy
    assert initial_model(problem, 0)(train.inputs).shape == (34, 2)


CASES = {
    "no array x_test, y_test": lambda a: {name: a[name] for name in ("x_train", "y_train")},
    "x_train has 40 rows, y_train 39": lambda a: {**a, "y_train": a["y_train"][:-1]},
    r"x_train has rows of shape \(3, 8, 8\), x_test of \(3, 6, 6\)": lambda a: {**a, "x_test": a["x_test"][:, :6, :6]},
    r"y_train has rows of shape \(1,\), y_test of \(\)": lambda a: {**a, "y_train": a["y_train"][:, None]},
    r"x_train \(40, 192, 1\) must be \(rows, features\) or images, y_train \(40,\) \(rows,\) or": lambda a: {
        **a,
        "x_train": a["x_train"].reshape(40, 192, 1),
    },
    "1 training rows are too few to hold some out for validation": lambda a: {
        **a,
        "x_train": a["x_train"][:1],
        "y_train": a["y_train"][:1],
    },
    "train label -1 in row 3 is no class number": lambda a: {
        **a,
        "y_train": np.where(np.arange(40) == 3, -1, a["y_train"]),
    },
    "train label 0.5 in row 0 is no class number": lambda a: {**a, "y_train": a["y_train"] + 0.5},
    "test label 9 in row 11 is outside the training rows' 4 classes": lambda a: {
        **a,
        "y_test": np.where(np.arange(12) == 11, 9, a["y_test"]),
    },
    "train inputs hold NaN or infinity, first in row 0": lambda a: {
        **a,
        "x_train": np.full((40, 5), np.nan),
        "x_test": np.ones((12, 5)),
    },
    "train targets are not numbers": lambda a: {**a, "y_train": a["y_train"].astype(str)},
    "labels have 2 columns": lambda a: {
        **a,
        "y_train": np.zeros((40, 2), dtype=int),
        "y_test": np.zeros((12, 2), dtype=int),
    },
}


@pytest.mark.parametrize("problem", CASES)
def test_unusable_arrays_are_named(tmp_path: Path, problem: str) -> None:
    path = save(tmp_path, **CASES[problem](arrays()))
    with pytest.raises(UserError, match=problem) as raised:
        load_problem("mine", study(path), CPU)
    assert str(raised.value).startswith(str(path))


def test_truncated_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = save(tmp_path, **arrays())
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match=r"mine\.npz: not a readable \.npz file"):
        load_problem("mine", study(path), CPU)
    with path.open("wb") as file:
        np.save(file, arrays()["x_train"])
    with pytest.raises(UserError, match=r"mine\.npz: one array, not several: save them with numpy\.savez"):
        load_problem("mine", study(path), CPU)
    path.write_text("nothing")
    with pytest.raises(UserError, match=r"mine\.npz: not a readable \.npz file"):
        load_problem("mine", study(path), CPU)


def test_networks_and_augmentation_need_images(tmp_path: Path) -> None:
    table = {**arrays(), "x_train": np.ones((40, 5)), "x_test": np.ones((12, 5))}
    with pytest.raises(UserError, match="model 'resnet18' needs images"):
        load_problem("mine", study(save(tmp_path, **table), model="resnet18"), CPU)
    with pytest.raises(UserError, match="'crop_flip' needs images"):
        load_problem("mine", study(save(tmp_path, **table), augmentation="crop_flip"), CPU)
    with pytest.raises(UserError, match="'resized_crop_flip' is for imagenet alone"):
        load_problem("mine", study(save(tmp_path, **arrays()), augmentation="resized_crop_flip"), CPU)


def test_channels_last_is_a_matter_of_memory_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = save(tmp_path, **arrays())
    settings = study(path, model="resnet18").model_dump(mode="json")
    outputs, strides = [], []
    for channels_last in (True, False):
        config = parse_config({**settings, "precision": {"channels_last": channels_last}}, "test")
        problem = load_problem("mine", config, CPU)
        model = initial_model(problem, 0).eval()
        convolution = model.get_submodule("conv1")
        convolution.register_forward_pre_hook(lambda _, inputs: strides.append(inputs[0].stride(1)))
        outputs.append(model(rows_in(problem.test).inputs))
    assert strides == [1, 64]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)
