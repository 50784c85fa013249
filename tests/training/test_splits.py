"""Rows that a file orders before they are split: what was begun on one split does not go on, or end, on another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adamqlr.errors import UserError
from adamqlr.files import opened
from adamqlr.jobs import between_steps
from adamqlr.jobs.checkpoint import Checkpoint
from adamqlr.problems.problem import load_problem
from adamqlr.stages import train as train_module
from adamqlr.stages import tune as tune_module
from adamqlr.stages.train import train
from adamqlr.stages.tune import tune
from adamqlr.study.case import Case
from adamqlr.study.config import parse_config
from adamqlr.tuning.journal import Journal
from adamqlr.tuning.trials import merge_shards, read_trials, write_trials


@pytest.fixture
def split_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have a file order the rows, or none."""
    return lambda split: monkeypatch.setattr(Case, "split", property(lambda case: split))


@pytest.fixture
def case(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Case:
    """A pair that writes its checkpoint after every step."""
    monkeypatch.setattr(between_steps, "_TICK_SECONDS", 0.0)
    config = {**settings, "training": {"checkpoint_seconds": 1e-9, "pack": "never"}}
    return Case(parse_config(config, "test"), "epochs", "digits", "adam")


def killed(*arguments: object, **options: object) -> None:
    raise InterruptedError


def run(case: Case, output: Path) -> None:
    train(case, [0], {"lr": 0.01, "batch_size": 400}, output)


def split_of(path: Path) -> str:
    with opened(path) as file:
        return str(file.getncattr("split"))


def test_training_goes_on_with_the_rows_it_began_with(
    case: Case,
    split_by: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    for after in ("drawn", "a1b2"):
        output = tmp_path / after / "runs.nc"
        split_by("drawn")
        with monkeypatch.context() as context:
            context.setattr(train_module, "write_runs", killed)
            with pytest.raises(InterruptedError):
                run(case, output)
        caplog.clear()
        split_by(after)
        run(case, output)
        assert split_of(output) == after
        assert ("goes on from step" in caplog.text) == (after == "drawn")
        assert ("of another split of the rows (drawn, now a1b2), kept as" in caplog.text) == (after == "a1b2")


def test_files_say_what_was_split_and_not_what_would_be_now(
    case: Case, split_by: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_before_the_file_comes(*arguments: Any) -> Any:
        problem = load_problem(*arguments)
        split_by("a1b2")
        return problem

    for module in (train_module, tune_module):
        monkeypatch.setattr(module, "load_problem", load_before_the_file_comes)
    for name, stage in (("runs.nc", run), ("0.nc", lambda case, output: tune(case, (0, 2), output))):
        split_by("drawn")
        stage(case, tmp_path / name)
        assert split_of(tmp_path / name) == "drawn"


def test_shards_of_different_splits_are_not_merged(
    case: Case, split_by: Callable[[str], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first, second = paths = [tmp_path / f"{shard}.nc" for shard in range(2)]
    for shard, split in enumerate(("drawn", "a1b2")):
        split_by(split)
        tune(case, (shard, 2), paths[shard])
    with pytest.raises(UserError, match=rf"{first} and {second}: the rows are split .*\('drawn' and 'a1b2'\)"):
        merge_shards(paths)
    # An earlier file does not know it.
    earlier = read_trials(second)
    del earlier.attrs["split"]
    write_trials(earlier, second)
    assert merge_shards(paths).sizes["trial"] == 4
    # What the journal knows of the other split is none of this one.
    caplog.clear()
    first.unlink()
    tune(case, (0, 2), first)
    assert "by the journal" not in caplog.text
    first.unlink()
    tune(case, (0, 2), first)
    assert "2 of 2 configurations have ended by the journal" in caplog.text


def test_what_earlier_versions_wrote_goes_on_with_any_split(tmp_path: Path) -> None:
    journal, checkpoint = tmp_path / ".journal", Checkpoint(tmp_path / "runs.nc", "one", "a1b2")
    Journal(journal, "search", 4).entry(0)
    assert Journal(journal, "search", 4, "a1b2").find(0) is not None
    assert Journal(journal, "another", 4, "a1b2").find(0) is None
    Journal(journal, "another", 4, "a1b2").entry(0)
    assert Journal(journal, "another", 4, "a1b2").find(0) is not None
    assert Journal(journal, "another", 4, "drawn").find(0) is None
    torch.save({"identity": "one", "state": {"step": 3}}, checkpoint.path)
    assert checkpoint.load() == {"step": 3}
