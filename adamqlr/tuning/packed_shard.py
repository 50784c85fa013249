"""A shard whose configurations of one batch size are trained side by side."""

import logging
from collections.abc import Sequence
from typing import Any

from adamqlr.problems.problem import Problem
from adamqlr.training.keeper import Keeper
from adamqlr.training.limit import Limit
from adamqlr.training.pack import RunPack
from adamqlr.training.step_time import measure_step_seconds
from adamqlr.tuning.journal import Entry
from adamqlr.tuning.shard import Shard

logger = logging.getLogger(__name__)

# Beyond this a pack saves little, and its activations take memory.
_MOST_MEMBERS = 64


class PackedShard(Shard):
    """A shard that trains configurations together and judges them together, at the end of each rung.

    Seconds are steps times what a step takes a single run of the batch size, which is measured once.
    """

    time_source = "steps taken times the seconds of a step, measured on a single run of each batch size"

    def _train_all(self, problem: Problem, saved: dict[str, Any] | None, keeper: Keeper) -> None:
        """Train one pack after another, going on from a saved state."""
        packs = self._split(len(problem.train))
        self.largest_pack = max((len(numbers) for _, numbers in packs), default=1)
        step_seconds: dict[int, float] = {} if saved is None else saved["step_seconds"]
        for index, (batch_size, numbers) in enumerate(packs):
            entries = [self._journal.entry(number) for number in numbers]
            if all(entry.is_finished for entry in entries):
                continue
            specs = [self._spec(number) for number in numbers]
            if batch_size not in step_seconds:
                step_seconds[batch_size] = measure_step_seconds(problem, specs[0])
            pack = RunPack(problem, specs, self._schedule, step_seconds[batch_size], evaluations=())
            if saved is not None and saved["index"] == index:
                pack.load_state_dict(saved["pack"])
                logger.info("%d trials go on from step %d", len(specs), pack.step)
            self._train_pack(pack, entries, keeper, {"index": index, "step_seconds": step_seconds}, index / len(packs))

    def _train_pack(
        self, pack: RunPack, entries: Sequence[Entry], keeper: Keeper, kept: dict[str, Any], done: float
    ) -> None:
        """Bring a pack's configurations to their ends; ``kept`` goes into the checkpoint with the pack's state."""

        def state() -> dict[str, Any]:
            return {**kept, "pack": pack.state_dict()}

        def status() -> tuple[float, str]:
            left = sum(not entry.is_finished for entry in entries)
            return done, f"{left} of {len(entries)} trials side by side, step {pack.step}"

        # Rungs must not move once values at them are in the journal.
        keeper.save(state())
        for member, entry in enumerate(entries):
            if entry.is_finished:
                pack.drop(member)
        for rung in range(len(self._search.resources)):
            steps = self._limit(rung, pack.steps_per_epoch).in_steps(pack.step_seconds)
            if pack.step > steps:
                # The pack left this rung, all its configurations judged, before the checkpoint was written.
                continue
            pack.advance(Limit(steps=steps), lambda: keeper.between_steps(state, status))
            self._judge(pack, entries, rung)
            if all(entry.is_finished for entry in entries):
                return

    def _judge(self, pack: RunPack, entries: Sequence[Entry], rung: int) -> None:
        """Enter the objectives at a rung, and end the configurations that go no further.

        All values are entered before the first verdict, so that a shard killed in between decides the same again.
        """
        final = rung == len(self._search.resources) - 1
        objectives = pack.objectives(self._search.objective)
        running = [(member, entry) for member, entry in enumerate(entries) if not entry.is_finished]
        for member, entry in running:
            entry.report(rung, objectives[member])
        for member, entry in running:
            history = pack.histories[member]
            if history.diverged or final or entry.is_beaten(rung):
                complete = final and not history.diverged
                entry.end(history.times[-1], history.diverged, objectives[member] if complete else None)
                pack.drop(member)

    def _split(self, rows: int) -> list[tuple[int, list[int]]]:
        """Return each pack's batch size and the numbers of its configurations.

        Batches of more than all ``rows`` are all the same.
        """
        by_size: dict[int, list[int]] = {}
        for number in self._owned:
            size = min(self._spec(number).hyperparameters["batch_size"], rows)
            by_size.setdefault(size, []).append(number)
        return [
            (size, numbers[first : first + _MOST_MEMBERS])
            for size, numbers in sorted(by_size.items())
            for first in range(0, len(numbers), _MOST_MEMBERS)
        ]
