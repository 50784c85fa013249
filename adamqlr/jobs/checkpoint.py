"""Checkpoints: a job's state in one file beside its output, until the output is in place."""

import glob
import logging
import pickle
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
    """

    def __init__(self, output: Path, identity: str) -> None:
        self.path = output.with_name(f".{output.name}.checkpoint")
        self._output, self._identity = output, identity

    def load(self) -> dict[str, Any] | None:
        """Return the state that was saved, on the CPU, or None if there is none.

        One of another configuration is kept beside it until the output is in place.

        Raises:
            UserError: The file is no checkpoint. It is left alone.
        """
        if not self.path.exists():
            return None
        state: dict[str, Any]
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            identity, state = saved["identity"], saved["state"]
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise UserError(f"{self.path}: not a readable checkpoint; remove it to start over") from error
        if identity == self._identity:
            return state
        aside = self.path.with_name(f"{self.path.name}-{identity[:8]}")
        self.path.replace(aside)
        logger.warning(
            "%s: of another configuration, kept as %s until the output is in place; starting over",
            self.path,
            aside.name,
        )
        return None

    def save(self, state: dict[str, Any]) -> None:
        """Write ``state``: tensors and plain Python values."""
        with replacing(self.path) as temporary:
            torch.save({"identity": self._identity, "state": state}, temporary)

    def remove(self) -> None:
        """Remove the file, those of processes that share the job, and what was kept beside, as the output is there.

        So goes what was left of a file by a job that was killed as it wrote it.
        """
        name = glob.escape(self._output.name)
        for pattern in (f".{name}*.checkpoint*", f"..{name}*.checkpoint*.tmp", f".{name}.*.tmp"):
            for path in self.path.parent.glob(pattern):
                path.unlink(missing_ok=True)

    def part(self, index: int, count: int) -> "Checkpoint":
        """Return the checkpoint of one of ``count`` processes that share the job."""
        part = f"{index}-of-{count}"
        return Checkpoint(self._output.with_name(f"{self._output.name}.{part}"), f"{self._identity}-{part}")
