"""The Penn Treebank's layout on a small, made-up text: words to rows, the network, and a user's mistakes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pooch
import pytest
import torch

from adamqlr.errors import UserError
from adamqlr.problems import penn_treebank, text
from adamqlr.problems.examples import batch_edges
from adamqlr.problems.problem import initial_model, load_problem
from adamqlr.results.runs import read_runs
from adamqlr.stages.select import select
from adamqlr.stages.sweep import sweep
from adamqlr.stages.train import train
from adamqlr.stages.tune import tune
from adamqlr.study.case import Case
from adamqlr.study.config import StudyConfig, parse_config
from adamqlr.tuning.trials import read_best, read_trials

CPU = torch.device("cpu")
# "a b c d" over and over, one line each: what follows a word can be learned.
LINE = "a b c d"
SMALL = {"transformer": {"layers": 1, "heads": 2, "width": 8, "length": 5}, "epochs": 2, "batch_size": 4}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write three made-up texts, each by default of 40 lines, as the Penn Treebank's files."""
    monkeypatch.setenv("ADAMQLR_DATA_DIR", str(tmp_path))

    def write_parts(**texts: str) -> Path:
        folder = tmp_path / "penn_treebank"
        folder.mkdir(exist_ok=True)
        for part, file in penn_treebank.FILES.items():
            (folder / file.name).write_text(texts.get(part, f"{LINE}\n" * 40))
        return folder

    return write_parts


def study(**settings: Any) -> StudyConfig:
    datasets = {"penn_treebank": {**SMALL, **settings}}
    optimizers = ["adam_untuned", "adamqlr_untuned", "kfac_untuned"]
    return parse_config({"name": "t", "device": "cpu", "datasets": datasets, "optimizers": optimizers}, "test")


def load(**settings: Any) -> Any:
    return load_problem("penn_treebank", study(**settings), CPU)


def test_rows_are_words_in_order_and_targets_the_words_that_follow(write: Callable[..., Path]) -> None:
    write(test="a b\nc a d\nb b b b")
    problem = load()
    # <eos> comes first; equally frequent words follow in the order of their first appearance.
    numbers = {"<eos>": 0, "a": 1, "b": 2, "c": 3, "d": 4}
    words = ["a", "b", "<eos>", "c", "a", "d", "<eos>", "b", "b", "b", "b", "<eos>"]
    expected = [numbers[word] for word in words]
    assert problem.test.inputs.tolist() == [expected[:5], expected[5:10]]
    assert problem.test.targets.tolist() == [expected[1:6], expected[6:11]], "the twelfth word is left over"
    assert [len(rows) for rows in (problem.train, problem.validation)] == [39, 39]
    logits = initial_model(problem, 0)(problem.test.inputs)
    assert logits.shape == (2, 5, 5)


def test_frequent_words_come_first_and_others_are_unknown(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(text.vocabulary(["b", "a", "<unk>", "a", "<eos>", "c"])) == ["<unk>", "<eos>", "a", "b", "c"]
    monkeypatch.setattr(text, "VOCABULARY", 4)
    write(train="a a a b b c <unk>\n" * 3, validation="c q a\n" * 2, test="a b\n" * 2)
    problem = load()
    assert problem.validation.inputs[0].tolist() == [0, 0, 2, 1, 0], "c and q are unknown"


@pytest.mark.parametrize(
    ("texts", "settings", "problem"),
    [
        ({"test": "a e\n" * 9}, {}, r"ptb\.test\.txt: 'e' is none of the training text's 5 most frequent words"),
        ({"validation": "a b c d"}, {}, r"ptb\.valid\.txt: 5 words are too few for a row of 5 and the word after it"),
        ({"train": ""}, {}, r"ptb\.train\.txt: 0 words are too few"),
        ({}, {"loss": "half_mse"}, "'penn_treebank': text needs model gpt2, loss cross_entropy"),
    ],
)
def test_unusable_texts_and_settings_are_named(
    write: Callable[..., Path], texts: dict[str, str], settings: dict[str, Any], problem: str
) -> None:
    write(**texts)
    with pytest.raises(UserError, match=problem):
        load(**settings)


def test_missing_and_binary_files_are_named(write: Callable[..., Path]) -> None:
    folder = write()
    (folder / "ptb.valid.txt").write_bytes(bytes(range(128, 256)))
    with pytest.raises(UserError, match=r"ptb\.valid\.txt: not a text file"):
        load()
    (folder / "ptb.valid.txt").unlink()
    with pytest.raises(UserError, match=r"ptb\.valid\.txt: no such file; `adamqlr fetch` downloads"):
        load()


def test_only_what_is_missing_is_downloaded(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, asked = write(), []

    def retrieve(url: str, checksum: str, fname: str, path: Path, **_: Any) -> None:
        asked.append((url, checksum))
        (path / fname).write_text(f"{LINE}\n")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    (folder / "ptb.test.txt").unlink()
    assert len(penn_treebank.fetch("penn_treebank", folder.parent)) == 3
    assert asked == [(f"{penn_treebank.URL}/ptb.test.txt", f"md5:{penn_treebank.FILES['test'].md5}")]


@pytest.mark.parametrize("optimizer", ["adam_untuned", "adamqlr_untuned", "kfac_untuned"])
def test_training_learns_what_follows(write: Callable[..., Path], tmp_path: Path, optimizer: str) -> None:
    write()
    output = tmp_path / "runs.nc"
    # The text is learned to the loss's last digit, where undamped steps follow the noise of rounding.
    chosen = {
        "adam_untuned": {"lr": 0.01},
        "adamqlr_untuned": {"lr_clipping": 0.1},
        "kfac_untuned": {"min_damping": 1e-2},
    }[optimizer]
    train(Case(study(epochs=15), "epochs", "penn_treebank", optimizer), [0], chosen, output)
    value = read_runs(output)["value"].isel(seed=0)
    loss, accuracy = (value.sel(metric=f"test_{name}").values for name in ("loss", "accuracy"))
    assert np.isfinite(loss).all()
    assert loss[-1] < 0.3 * loss[0]
    assert accuracy[-1] > 0.9


def test_another_length_cuts_all_rows_and_makes_another_network(write: Callable[..., Path]) -> None:
    write(train="a b c d\n" * 41)
    problem = load()
    longer = problem.with_length(8)
    assert [len(p.train) for p in (problem, longer)] == [204 // 5, 204 // 8]
    for part in ("train", "validation", "test"):
        rows, shorter = getattr(longer, part), getattr(problem, part)
        assert rows.inputs.shape == rows.targets.shape == (len(rows), 8)
        words = min(rows.inputs.numel(), shorter.inputs.numel())
        assert torch.equal(rows.inputs.flatten()[:words], shorter.inputs.flatten()[:words])
        assert torch.equal(rows.targets.flatten()[:-1], rows.inputs.flatten()[1:])
    assert initial_model(longer, 0)(longer.test.inputs).shape == (len(longer.test), 5, 8)
    with pytest.raises(
        UserError, match=r"ptb\.train\.txt: 205 words are too few for a row of 300 and the word after it"
    ):
        problem.with_length(300)


def test_the_length_is_tuned_and_what_is_best_is_trained(tmp_path: Path) -> None:
    """On a text that comes with scikit-learn, with a search space of its own."""
    settings = {
        "name": "t",
        "device": "cpu",
        "datasets": {"descriptions": {"epochs": 1}},
        "optimizers": ["adam"],
        "tuning": {"trials": 4, "unit": "epochs", "first_rung": 1, "limit": 1},
        "sensitivity": {
            "length": {"dataset": "descriptions", "optimizer": "adam", "parameter": "length", "values": [5, 30]}
        },
    }
    config = parse_config(settings, "test")
    case = Case(config, "epochs", "descriptions", "adam")
    tune(case, (0, 1), tmp_path / "shard.nc")
    select([tmp_path / "shard.nc"], tmp_path / "trials.nc", tmp_path / "best.yaml")
    lengths = read_trials(tmp_path / "trials.nc")["hyperparameter_length"].values.tolist()
    assert lengths == [one["length"] for one in case.configurations()]
    assert len(set(lengths)) > 1
    best = read_best(tmp_path / "best.yaml", "epochs", "descriptions", "adam")
    train(case, [0], best, tmp_path / "runs.nc")
    sweep(config, "length", "5", [0], tmp_path / "best.yaml", tmp_path / "sweep.nc")
    rows = {
        length: len(load_problem("descriptions", config, CPU).with_length(length).train) for length in (*lengths, 5)
    }
    for file, length in (("runs", best["length"]), ("sweep", 5)):
        runs = read_runs(tmp_path / f"{file}.nc")
        assert json.loads(runs.attrs["hyperparameters"]) == {**best, "length": length}
        assert int(runs["step"].max()) == len(batch_edges(rows[length], best["batch_size"])) - 1, "an epoch of steps"


def test_only_texts_have_a_length(tmp_path: Path) -> None:
    config = parse_config({"name": "t", "datasets": ["digits"], "optimizers": ["adam"]}, "test")
    with pytest.raises(UserError, match="optimizer 'adam': unknown hyperparameter 'length': known are lr"):
        train(Case(config, "epochs", "digits", "adam"), [0], {"lr": 0.1, "length": 5}, tmp_path / "runs.nc")
