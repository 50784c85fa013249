"""Checkpoints: a job's state in one file beside its output, until the output is in place."""

import logging
import re
from pathlib import Path
from typing import Any

import torch

from adamqlr.errors import UserError
from adamqlr.files import replacing

logger = logging.getLogger(__name__)


class Checkpoint:
    """One job's checkpoint file.

    Args:
        output: What the job makes; the checkpoint lies beside it as ``.<name>.checkpoint``.
        identity: A fingerprint of everything that decides the job's results.
        split: What orders the rows before they are split, if a file may. Earlier checkpoints do not know it.
    """

    def __init__(self, output: Path, identity: str, split: str = "") -> None:
        self.path = output.with_name(f".{output.name}.checkpoint")
        self._output, self._identity, self._split = output, identity, split

    def load(self) -> dict[str, Any] | None:
        """Return the state that was saved, on the CPU, or None if there is none.

        One of another configuration, or one that is damaged, is kept beside it until the output is in place.

        Raises:
            UserError: The file system does not let it be read now. The file is left alone.
        """
        if not self.path.exists():
            return None
        state: dict[str, Any]
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            identity, state, split = saved["identity"], saved["state"], saved.get("split", self._split)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read: {error.strerror}") from error
        except Exception as error:
            # Contents that a crash has cut off or zeroed fail in as many ways as there are places in the file.
            first_line = str(error).partition("\n")[0]
            self._put_aside("unreadable", f"not a readable checkpoint ({type(error).__name__}: {first_line})")
            return None
        if (identity, split) == (self._identity, self._split):
            return state
        what = "configuration" if split == self._split else f"split of the rows ({split}, now {self._split})"
        self._put_aside(identity[:8], f"of another {what}")
        return None

    def _put_aside(self, suffix: str, why: str) -> None:
        aside = self.path.with_name(f"{self.path.name}-{suffix}")
        self.path.replace(aside)
        logger.warning("%s: %s, kept as %s until the output is in place; starting over", self.path, why, aside.name)

    def save(self, state: dict[str, Any]) -> None:
        """Write ``state``: tensors and plain Python values."""
        with replacing(self.path) as temporary:
            torch.save({"identity": self._identity, "split": self._split, "state": state}, temporary)

    def remove(self) -> None:
        """Remove the file, those of processes that share the job, and what was kept beside, as the output is there.

        So goes what was left of a file by a job that was killed as it wrote it.
        """
        # Exactly these: another output's name may begin like this one's.
        name = re.escape(self._output.name)
        checkpoint = rf"\.{name}(\.\d+-of-\d+)?\.checkpoint"
        own = re.compile(rf"{checkpoint}(-[^.]+)?|\.{checkpoint}\.[^.]+\.tmp|\.{name}\.[^.]+\.tmp")
        for path in self.path.parent.iterdir():
            if own.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def part(self, index: int, count: int) -> "Checkpoint":
        """Return the checkpoint of one of ``count`` processes that share the job."""
        part = f"{index}-of-{count}"
        output = self._output.with_name(f"{self._output.name}.{part}")
        return Checkpoint(output, f"{self._identity}-{part}", self._split)
