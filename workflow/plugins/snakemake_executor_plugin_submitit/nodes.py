"""Nodes on which jobs fail one after another, and that are kept away from."""

from collections import Counter
from collections.abc import Callable

from snakemake_executor_plugin_submitit.endings import Ending

_LOST = {"BOOT_FAIL", "NODE_FAIL"}


class Nodes:
    """Counts failures in a row.

    Args:
        limit: How many make a node one to keep away from; 0 for no number of them.
        warn: Called with what a user should know.
    """

    def __init__(self, limit: int, warn: Callable[[str], None]) -> None:
        self._limit, self._warn = limit, warn
        self._failures: Counter[str] = Counter()
        self._failed_on: dict[str, str] = {}
        self._pardoned: set[str] = set()
        self.excluded: list[str] = []

    def judge(self, node: str, key: str, ending: Ending, state: str) -> Ending:
        """Take note of how a job has ended on a node, and judge whose doing it was.

        What fails on a node that gets no more jobs, be it since this very failure, has been interrupted, once a job:
        others that were out there or submitted before it was known must not pay for it with their retries. So has what
        could not begin; once, as what asks for something that is not there never can.

        Args:
            node: Where the job ran; nothing if that is not known.
            key: The job's key: what has failed on another node before is to blame itself.
            ending: How it has ended.
            state: Slurm's name for that.

        Returns:
            How it is to be taken: what is a node's doing is interrupted.
        """
        if ending is Ending.SUCCEEDED:
            self._failures.pop(node, None)
        failed, is_nodes_doing = ending in (Ending.FAILED, Ending.UNSTARTED), ending is Ending.UNSTARTED
        if node and (failed or state in _LOST) and self._failed_on.setdefault(key, node) == node:
            self._count(node)
            is_nodes_doing |= failed and node in self.excluded
        if is_nodes_doing and key not in self._pardoned:
            self._pardoned.add(key)
            return Ending.INTERRUPTED
        return Ending.FAILED if failed else ending

    def _count(self, node: str) -> None:
        self._failures[node] += 1
        if self._failures[node] == self._limit and node not in self.excluded:
            self.excluded.append(node)
            self._warn(
                f"{node} gets no more jobs: {self._limit} in a row failed there (--submitit-node-failures 0 would let "
                "it have them)"
            )

    def forgive(self) -> None:
        """Exclude no node any more, and count anew."""
        self.excluded.clear()
        self._failures.clear()
