"""Checkpoints: a job's state in one file beside its output, until the output is in place."""

import pickle
from pathlib import Path
from typing import Any

import torch

from adamqlr.errors import UserError
from adamqlr.files import replacing


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

        Raises:
            UserError: The file is no checkpoint, or one of another configuration. It is left alone.
        """
        if not self.path.exists():
            return None
        state: dict[str, Any]
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            identity, state = saved["identity"], saved["state"]
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise UserError(f"{self.path}: not a readable checkpoint; remove it to start over") from error
        if identity != self._identity:
            raise UserError(f"{self.path}: checkpoint of another configuration; remove it to start over")
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Write ``state``: tensors and plain Python values."""
        with replacing(self.path) as temporary:
            torch.save({"identity": self._identity, "state": state}, temporary)

    def remove(self) -> None:
        """Remove the file, once the output is in place."""
        self.path.unlink(missing_ok=True)

    def part(self, index: int, count: int) -> "Checkpoint":
        """Return the checkpoint of one of ``count`` processes that share the job."""
        part = f"{index}-of-{count}"
        return Checkpoint(self._output.with_name(f"{self._output.name}.{part}"), f"{self._identity}-{part}")
