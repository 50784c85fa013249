"""The journal through which shards of a search share what they found."""

import os
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import FrozenTrial, TrialState

from adamqlr.errors import UserError
from adamqlr.tuning.asha import AshaPruner


class Journal:
    """A search's Optuna study in a file.

    Args:
        path: The file.
        identity: What the search is.
        reduction_factor: Between rungs; one in this many configurations passes each.
        split: What orders the rows before they are split, if a file may. Earlier journals do not know it.

    Raises:
        UserError: The file is no journal.
    """

    def __init__(self, path: Path, identity: str, reduction_factor: int, split: str = "") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # The lock is a link to this name. Where it leads nowhere, as a relative one does, the lock of a killed shard is
        # never seen to be old, and waited for without end.
        name = str(path.absolute())
        lock = JournalFileSymlinkLock(name)
        _cut_torn_line(path, lock)
        try:
            storage = JournalStorage(JournalFileBackend(name, lock))
            is_earlier = identity in optuna.get_all_study_names(storage)
            self._study = optuna.create_study(
                storage=storage,
                study_name=f"{identity}-{split}" if split and not is_earlier else identity,
                pruner=AshaPruner(reduction_factor),
                load_if_exists=True,
            )
        except ValueError as error:
            raise UserError(f"{path}: not a readable journal; remove its folder to search again") from error

    def find(self, number: int) -> FrozenTrial | None:
        """Return what is known of a configuration."""
        for trial in self._study.get_trials(deepcopy=False):
            if trial.user_attrs["number"] == number:
                return trial
        return None

    def finished(self) -> set[int]:
        """Return the numbers of the configurations that have come to their ends."""
        return {
            trial.user_attrs["number"] for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished()
        }

    def entry(self, number: int) -> "Entry":
        """Return a configuration's entry; one that is found running when its shard starts is the shard's own."""
        known = self.find(number)
        if known is None:
            running = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs={"number": number})
            self._study.add_trial(running)
            known = self.find(number)
            assert known is not None
        return Entry(self._study, known)


def _cut_torn_line(path: Path, lock: JournalFileSymlinkLock) -> None:
    """Cut off the part of a line that a full disk has left at the end: the next line would be appended to it."""
    if not path.exists():
        return
    lock.acquire()
    try:
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)
    finally:
        lock.release()


class Entry:
    """A configuration in the journal.

    Args:
        study: The search.
        known: What the journal holds when its shard starts.

    Attributes:
        is_finished: Whether it has come to its end.
    """

    def __init__(self, study: optuna.Study, known: FrozenTrial) -> None:
        self._study = study
        self._reported = set(known.intermediate_values)
        self.is_finished = known.state.is_finished()
        self._trial = None if self.is_finished else optuna.trial.Trial(study, known._trial_id)

    def report(self, rung: int, value: float) -> None:
        """Enter the objective at a rung, unless it was entered before the shard was killed."""
        assert self._trial is not None
        if rung not in self._reported:
            self._trial.report(value, rung)
            self._reported.add(rung)

    def is_beaten(self, rung: int) -> bool:
        """Tell whether the configuration stops at a rung; one that has reached a later rung did not."""
        assert self._trial is not None
        return rung == max(self._reported) and self._trial.should_prune()

    def goes_beyond(self, rung: int) -> bool:
        """Tell whether the configuration is trained beyond a rung, be it that this was before the shard was killed."""
        return not self.is_finished or max(self._reported) > rung

    def end(self, seconds: float, diverged: bool, objective: float | None) -> None:
        """Enter the end of a configuration.

        Args:
            seconds: Training seconds spent.
            diverged: Whether its numbers are no longer finite.
            objective: The objective if it is complete; None if it stopped earlier.
        """
        assert self._trial is not None
        # Attributes come first: a finished trial takes no more of them.
        self._trial.set_user_attr("seconds", seconds)
        self._trial.set_user_attr("diverged", diverged)
        self._study.tell(self._trial, objective, state=TrialState.PRUNED if objective is None else TrialState.COMPLETE)
        self.is_finished = True
