"""One shard of a search: the configurations it owns, trained rung by rung, one after another or side by side."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from adamqlr.jobs.between_steps import BetweenSteps
from adamqlr.jobs.checkpoint import Checkpoint
from adamqlr.jobs.device import set_precision
from adamqlr.jobs.interrupts import StopRequest
from adamqlr.jobs.progress import Progress
from adamqlr.problems.examples import steps_per_epoch
from adamqlr.problems.problem import Problem
from adamqlr.study.case import Case
from adamqlr.study.fingerprint import fingerprint
from adamqlr.study.limit import Limit
from adamqlr.study.step_costs import StepCosts
from adamqlr.training.narrowing import state_of
from adamqlr.training.optimizers import check_hyperparameters
from adamqlr.training.run import Run, RunSpec
from adamqlr.training.schedule import RecordSchedule
from adamqlr.training.side_by_side import pack_size
from adamqlr.training.step_time import measure_step_seconds
from adamqlr.tuning.journal import Entry, Journal
from adamqlr.tuning.trials import Trial

logger = logging.getLogger(__name__)


class _Group(NamedTuple):
    """Configurations that are trained together.

    Attributes:
        numbers: Which ones, of one batch size.
        is_pack: Whether they are trained side by side, be it a single one.
    """

    numbers: list[int]
    is_pack: bool = False


class Shard:
    """Shard k of K: it owns configurations i with i mod K = k, and shares rung values with the others.

    Configurations of one batch size are trained together where that is faster, and judged together at the end of each
    rung. Seconds are then steps times what a step takes a single run of the batch size, which is measured once.

    Args:
        case: What is searched.
        index: k.
        count: K.
        journal: The file through which shards share what they found.
        problem: What is optimized, on the device that trains.
        may_pack: Whether configurations may be trained together.
        costs: What steps cost, where rungs count them.

    Attributes:
        time_source: Where trials' seconds are from.
        is_packed: Whether there are configurations that are trained side by side.
        largest_pack: The most configurations that were trained side by side in one process.
    """

    def __init__(
        self,
        case: Case,
        index: int,
        count: int,
        journal: Path,
        problem: Problem,
        may_pack: bool = False,
        costs: StepCosts | None = None,
    ) -> None:
        self._case, self._problem, self._costs = case, problem, costs
        self._owned = range(index, case.study.tuning.trials, count)
        self._configurations = case.configurations()
        self._journal = Journal(journal, search_identity(case, costs), case.study.tuning.reduction_factor, case.split)
        training = case.study.training
        self._schedule = RecordSchedule(training.record_every, training.record_growth)
        self._groups = self._grouped(may_pack)
        self.largest_pack = max((len(group.numbers) for group in self._groups), default=1)
        self.is_packed = any(group.is_pack for group in self._groups)
        self.time_source = "measured"
        if costs is not None:
            self.time_source = "steps taken times what they cost by the file of step costs"
        elif self.is_packed:
            self.time_source = "steps taken times the seconds of a step, measured on a single run of each batch size"

    def run(self, checkpoint: Checkpoint, stop: StopRequest) -> None:
        """Bring every owned configuration to its end.

        Raises:
            Interrupted: The job was asked to stop; its state is in the checkpoint and the journal.
        """
        case = self._case
        set_precision(case.study.precision)
        if known := self._journal.finished().intersection(self._owned):
            logger.info("%d of %d configurations have ended by the journal", len(known), len(self._owned))
        progress = Progress(f"tune {case}")
        between_steps = BetweenSteps(checkpoint, stop, case.study.training.checkpoint_seconds, progress)
        self._train_all(checkpoint.load(), between_steps)
        progress.close()

    def results(self) -> list[Trial]:
        """Return the owned configurations, all of which have been brought to their ends."""
        return [self._result(number) for number in self._owned]

    def _train_all(self, saved: dict[str, Any] | None, between_steps: BetweenSteps) -> None:
        """Train what was saved to its end, and then one group after another."""
        saved = self._in_form(saved or {})
        step_seconds: dict[int, float] = saved["step_seconds"]
        if saved["run"] is not None and not self._journal.finished().issuperset(saved["numbers"]):
            # It goes on as it began, whatever is now best trained together.
            numbers, is_pack = saved["numbers"], "epochs" in saved["run"]["batches"]
            seconds = saved["seconds"] or self._step_seconds(numbers, is_pack, step_seconds)
            run = self._run(numbers, is_pack, seconds)
            run.load_state_dict(saved["run"])
            logger.info("%s on from step %d", _goes(numbers), run.step)
            self._train(run, numbers, between_steps, step_seconds, saved["rung"])
        for numbers, is_pack in self._groups:
            if not self._journal.finished().issuperset(numbers):
                run = self._run(numbers, is_pack, self._step_seconds(numbers, is_pack, step_seconds))
                self._train(run, numbers, between_steps, step_seconds)

    def _run(self, numbers: Sequence[int], is_pack: bool, step_seconds: float | None) -> Run:
        specs = [self._spec(number) for number in numbers]
        return Run(self._problem, specs if is_pack else specs[0], self._schedule, (), step_seconds)

    def _step_seconds(self, numbers: Sequence[int], is_pack: bool, measured: dict[int, float]) -> float | None:
        """Return what a step of runs counts, once it is known; None where seconds are on the clock."""
        spec = self._spec(numbers[0])
        if self._costs is not None:
            return self._costs.of(spec.hyperparameters)
        if not is_pack:
            return None
        batch_size = self._batch_size(spec)
        if batch_size not in measured:
            measured[batch_size] = measure_step_seconds(self._problem, spec)
        return measured[batch_size]

    def _train(
        self,
        run: Run,
        numbers: Sequence[int],
        between_steps: BetweenSteps,
        step_seconds: dict[int, float],
        first_rung: int = 0,
    ) -> None:
        """Bring configurations to their ends, from a rung on: they have been judged at those before it."""
        entries, rung = [self._journal.entry(number) for number in numbers], first_rung
        done = len(self._journal.finished().intersection(self._owned)) / len(self._owned)

        def state() -> dict[str, Any]:
            now = {"numbers": list(numbers), "run": run.state_dict(), "rung": rung, "seconds": run.step_seconds}
            return {**now, "step_seconds": step_seconds}

        def status() -> tuple[float, str]:
            left = sum(not entry.is_finished for entry in entries)
            what = f"trial {numbers[0]}" if len(numbers) == 1 else f"{left} of {len(numbers)} trials side by side"
            return done, f"{what}, step {run.step}"

        def between() -> None:
            between_steps(state, status, run.off_clock)

        if run.step_seconds is not None:
            # Rungs must not move once values at them are in the journal.
            between_steps.save(state())
        _drop_finished(run, entries)
        for rung in range(first_rung, len(self._case.rungs)):
            limit = self._case.rung_limit(rung, run.steps_per_epoch)
            if run.step_seconds is not None:
                limit = Limit(steps=limit.in_steps(run.step_seconds))
            run.advance(limit, between)
            self._judge(run, entries, rung)
            if all(entry.is_finished for entry in entries):
                return
            run, numbers, entries = self._without_ended(run, numbers, entries, rung)

    def _judge(self, run: Run, entries: Sequence[Entry], rung: int) -> None:
        """Enter the objectives at a rung, and end the configurations that go no further.

        All values are entered before the first verdict, so that a shard killed in between decides the same again.
        """
        final = rung == len(self._case.rungs) - 1
        objectives = run.objectives(self._case.objective)
        running = [(member, entry) for member, entry in enumerate(entries) if not entry.is_finished]
        for member, entry in running:
            entry.report(rung, objectives[member])
        for member, entry in running:
            history = run.histories[member]
            if history.diverged or final or entry.is_beaten(rung):
                complete = final and not history.diverged
                entry.end(history.times[-1], history.diverged, objectives[member] if complete else None)
                run.drop(member)

    def _without_ended(
        self, run: Run, numbers: Sequence[int], entries: list[Entry], rung: int
    ) -> tuple[Run, Sequence[int], list[Entry]]:
        """Return what is left without the configurations that end at a rung: the run, their numbers and entries.

        How sums round depends on which are together. So those that are known to end later, as a shard that was killed
        had them end there, stay until then.
        """
        left = [member for member, entry in enumerate(entries) if entry.goes_beyond(rung)]
        if len(left) == len(entries):
            return run, numbers, entries
        numbers, entries = [numbers[member] for member in left], [entries[member] for member in left]
        # First, as making a run seeds the random numbers that the state tells.
        state = run.state_dict()
        others = self._run(numbers, len(numbers) > 1, run.step_seconds)
        others.load_state_dict(state_of(state, left, others.state_dict()))
        _drop_finished(others, entries)
        return others, numbers, entries

    def _grouped(self, may_pack: bool) -> list[_Group]:
        """Return what is trained together."""
        if not (may_pack and self._case.can_pack_trials):
            return [_Group([number]) for number in self._owned]
        sizes = {number: self._batch_size(self._spec(number)) for number in self._owned}
        groups = []
        for size in sorted(set(sizes.values())):
            numbers = [number for number in self._owned if sizes[number] == size]
            most = pack_size(self._case, self._problem, size, len(numbers), self._steps(size) * len(numbers))
            step = most or 1
            groups += [_Group(numbers[i : i + step], most > 0) for i in range(0, len(numbers), step)]
        return groups

    def _batch_size(self, spec: RunSpec) -> int:
        return self._problem.rows_of_batch(spec.hyperparameters["batch_size"])

    def _steps(self, batch_size: int) -> float:
        """Return the most steps of a trial; where seconds decide, they are many."""
        steps = steps_per_epoch(len(self._problem.train), batch_size)
        limit = self._case.rung_limit(len(self._case.rungs) - 1, steps)
        return math.inf if limit.steps is None or limit.seconds is not None else limit.steps

    def _in_form(self, saved: dict[str, Any]) -> dict[str, Any]:
        """Return a checkpoint in today's form: version 0.1 had two others."""
        if "number" in saved:
            saved = {"numbers": [saved["number"]], "run": saved["run"]}
        elif "pack" in saved:
            group = self._groups[saved["index"]]
            saved = {"numbers": group.numbers, "run": saved["pack"], "step_seconds": saved["step_seconds"]}
        return {"run": None, "rung": 0, "seconds": None, "step_seconds": {}, **saved}

    def _spec(self, number: int) -> RunSpec:
        case = self._case
        hyperparameters = case.hyperparameters(self._configurations[number])
        check_hyperparameters(case, hyperparameters)
        return RunSpec(case.spec, hyperparameters, number, case.study.seed, tuning=True)

    def _result(self, number: int) -> Trial:
        found = self._journal.find(number)
        assert found is not None
        values = [value for _, value in sorted(found.intermediate_values.items())]
        state = "diverged" if found.user_attrs["diverged"] else found.state.name.lower()
        return Trial(number, self._configurations[number], values, state, found.user_attrs["seconds"])


def search_identity(case: Case, costs: StepCosts | None) -> str:
    """Return a fingerprint of everything that decides the trials."""
    found = case.search_fingerprint()
    return found if costs is None else fingerprint([found, sorted(costs.seconds.items())])


def _drop_finished(run: Run, entries: Sequence[Entry]) -> None:
    for member, entry in enumerate(entries):
        if entry.is_finished:
            run.drop(member)


def _goes(numbers: Sequence[int]) -> str:
    return f"trial {numbers[0]} goes" if len(numbers) == 1 else f"{len(numbers)} trials go"
