"""One shard of a search: the configurations it owns, trained rung by rung."""

import logging
from pathlib import Path

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from adamqlr.problems.problem import Problem, load_problem
from adamqlr.training.checkpoint import Checkpoint
from adamqlr.training.device import set_precision
from adamqlr.training.hyperparameters import resolve_hyperparameters
from adamqlr.training.interrupts import StopRequest
from adamqlr.training.keeper import Keeper
from adamqlr.training.progress import Progress
from adamqlr.training.run import Run, RunSpec
from adamqlr.training.schedule import RecordSchedule
from adamqlr.tuning.asha import AshaPruner
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
    """

    def __init__(self, search: Search, index: int, count: int, journal: Path, device: torch.device) -> None:
        self._search = search
        self._owned = range(index, search.config.tuning.trials, count)
        self._device = device
        self._configurations = search.configurations()
        journal.parent.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))),
            study_name=search.identity,
            pruner=AshaPruner(search.config.tuning.reduction_factor),
            load_if_exists=True,
        )

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
        saved = checkpoint.load()
        for position, number in enumerate(self._owned):
            if (trial := self._find(number)) is not None and trial.state.is_finished():
                continue
            resumed = saved["run"] if saved is not None and saved["number"] == number else None
            run = self._make_run(number, problem)
            if resumed is not None:
                run.load_state_dict(resumed)
                logger.info("trial %d goes on from step %d", number, run.step)
            self._train(run, trial or self._register(number), keeper, position / len(self._owned))
        progress.close()

    def results(self) -> list[Trial]:
        """Return the owned configurations, all of which have been brought to their ends."""
        return [self._result(number) for number in self._owned]

    def _find(self, number: int) -> FrozenTrial | None:
        for trial in self._study.get_trials(deepcopy=False):
            if trial.user_attrs["number"] == number:
                return trial
        return None

    def _register(self, number: int) -> FrozenTrial:
        """Enter a configuration as running; one that is found running when its shard starts is the shard's own."""
        trial = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs={"number": number})
        self._study.add_trial(trial)
        registered = self._find(number)
        assert registered is not None
        return registered

    def _train(self, run: Run, frozen: FrozenTrial, keeper: Keeper, done: float) -> None:
        search, trial = self._search, optuna.trial.Trial(self._study, frozen._trial_id)
        number = frozen.user_attrs["number"]

        def between_steps() -> None:
            keeper.between_steps(
                lambda: {"number": number, "run": run.state_dict()},
                lambda: (done, f"trial {number}, step {run.step}"),
            )

        final = len(search.resources) - 1
        for rung, resource in enumerate(search.resources):
            run.advance(
                rung_limit(search.config, search.suite, search.dataset, resource, run.steps_per_epoch),
                between_steps,
            )
            if rung not in frozen.intermediate_values:
                trial.report(run.objective(search.objective), rung)
            if run.diverged or (rung < final and trial.should_prune()):
                self._end(trial, run, TrialState.PRUNED)
                return
        self._end(trial, run, TrialState.COMPLETE)

    def _make_run(self, number: int, problem: Problem) -> Run:
        search = self._search
        hyperparameters = resolve_hyperparameters(
            search.config, search.dataset, search.optimizer, self._configurations[number]
        )
        spec = RunSpec(search.optimizer, hyperparameters, number, search.config.seed, tuning=True)
        training = search.config.training
        return Run(problem, spec, RecordSchedule(training.record_every, training.record_growth), evaluations=())

    def _end(self, trial: optuna.trial.Trial, run: Run, state: TrialState) -> None:
        # Attributes come first: a finished trial takes no more of them.
        trial.set_user_attr("seconds", run.seconds)
        trial.set_user_attr("diverged", run.diverged)
        objective = run.objective(self._search.objective) if state is TrialState.COMPLETE else None
        self._study.tell(trial, objective, state=state)

    def _result(self, number: int) -> Trial:
        found = self._find(number)
        assert found is not None
        values = [value for _, value in sorted(found.intermediate_values.items())]
        state = "diverged" if found.user_attrs["diverged"] else found.state.name.lower()
        return Trial(number, self._configurations[number], values, state, found.user_attrs["seconds"])
