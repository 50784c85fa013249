"""Nodes on which jobs fail one after another, and that are kept away from."""

from collections import Counter


class Nodes:
    """Counts failures in a row.

    Args:
        limit: How many make a node one to keep away from; 0 for no number of them.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._failures: Counter[str] = Counter()
        self._failed_on: dict[str, str] = {}
        self.excluded: list[str] = []

    def note_success(self, node: str) -> None:
        """Note that a job has succeeded on a node."""
        self._failures.pop(node, None)

    def note_failure(self, node: str, key: str) -> bool:
        """Note that a job has failed on a node.

        Args:
            node: Where the job ran; nothing if that is not known.
            key: The job's key: what has failed on another node before is to blame itself.

        Returns:
            Whether the node is kept away from since, and was not before.
        """
        if not node or self._failed_on.setdefault(key, node) != node:
            return False
        self._failures[node] += 1
        if self._failures[node] != self._limit or node in self.excluded:
            return False
        self.excluded.append(node)
        return True

    def forgive(self) -> None:
        """Exclude no node any more, and count anew."""
        self.excluded.clear()
        self._failures.clear()
