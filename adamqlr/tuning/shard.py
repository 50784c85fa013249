"""One shard of a search: the configurations it owns, trained rung by rung."""

import logging
from pathlib import Path
from typing import Any

import torch

from adamqlr.problems.problem import Problem, load_problem
from adamqlr.training.checkpoint import Checkpoint
from adamqlr.training.device import set_precision
from adamqlr.training.hyperparameters import resolve_hyperparameters
from adamqlr.training.interrupts import StopRequest
from adamqlr.training.keeper import Keeper
from adamqlr.training.limit import Limit
from adamqlr.training.progress import Progress
from adamqlr.training.run import Run, RunSpec
from adamqlr.training.schedule import RecordSchedule
from adamqlr.tuning.journal import Entry, Journal
from adamqlr.tuning.search import Search, rung_limit
from adamqlr.tuning.trials import Trial

logger = logging.getLogger(__name__)


class Shard:
    """Shard k of K: it owns configurations i with i mod K = k, and shares rung values with the others.

    Args:
        search: What is searched.
        index: k.
        count: K.
        journal: The file through which shards share what they found.
        device: Where it trains.

    Attributes:
        time_source: Where trials' seconds are from.
        largest_pack: The most configurations that were trained side by side in one process.
    """

    time_source = "measured"
    largest_pack = 1

    def __init__(self, search: Search, index: int, count: int, journal: Path, device: torch.device) -> None:
        self._search = search
        self._owned = range(index, search.config.tuning.trials, count)
        self._device = device
        self._configurations = search.configurations()
        self._journal = Journal(journal, search)
        training = search.config.training
        self._schedule = RecordSchedule(training.record_every, training.record_growth)

    def run(self, checkpoint: Checkpoint, stop: StopRequest) -> None:
        """Bring every owned configuration to its end.

        Raises:
            Interrupted: The job was asked to stop; its state is in the checkpoint and the journal.
        """
        search = self._search
        set_precision(search.config.precision)
        problem = load_problem(search.dataset, search.config, self._device)
        progress = Progress(f"tune {search.dataset}/{search.optimizer}")
        keeper = Keeper(checkpoint, stop, search.config.training.checkpoint_seconds, progress)
        self._train_all(problem, checkpoint.load(), keeper)
        progress.close()

    def results(self) -> list[Trial]:
        """Return the owned configurations, all of which have been brought to their ends."""
        return [self._result(number) for number in self._owned]

    def _train_all(self, problem: Problem, saved: dict[str, Any] | None, keeper: Keeper) -> None:
        """Train configurations one after another, going on from a saved state."""
        for position, number in enumerate(self._owned):
            entry = self._journal.entry(number)
            if entry.is_finished:
                continue
            run = Run(problem, self._spec(number), self._schedule, evaluations=())
            if saved is not None and saved["number"] == number:
                run.load_state_dict(saved["run"])
                logger.info("trial %d goes on from step %d", number, run.step)
            self._train(number, run, entry, keeper, position / len(self._owned))

    def _train(self, number: int, run: Run, entry: Entry, keeper: Keeper, done: float) -> None:
        def between_steps() -> None:
            keeper.between_steps(
                lambda: {"number": number, "run": run.state_dict()},
                lambda: (done, f"trial {number}, step {run.step}"),
            )

        objective, final = self._search.objective, len(self._search.resources) - 1
        for rung in range(final + 1):
            run.advance(self._limit(rung, run.steps_per_epoch), between_steps)
            entry.report(rung, run.objective(objective))
            if run.diverged or (rung < final and entry.is_beaten(rung)):
                entry.end(run.seconds, run.diverged, None)
                return
        entry.end(run.seconds, run.diverged, run.objective(objective))

    def _spec(self, number: int) -> RunSpec:
        search = self._search
        hyperparameters = resolve_hyperparameters(
            search.config, search.dataset, search.optimizer, self._configurations[number]
        )
        return RunSpec(search.optimizer, hyperparameters, number, search.config.seed, tuning=True)

    def _limit(self, rung: int, steps_per_epoch: int) -> Limit:
        search = self._search
        return rung_limit(search.config, search.suite, search.dataset, search.resources[rung], steps_per_epoch)

    def _result(self, number: int) -> Trial:
        found = self._journal.find(number)
        assert found is not None
        values = [value for _, value in sorted(found.intermediate_values.items())]
        state = "diverged" if found.user_attrs["diverged"] else found.state.name.lower()
        return Trial(number, self._configurations[number], values, state, found.user_attrs["seconds"])
