"""Later passes of a step see what its first pass saw: the same random numbers, the same buffers."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from adamqlr.optim.buffers import can_hold
from adamqlr.optim.torch_private import copy_all

# Where generators stand, if they are used, and buffers; None for buffers that are yet to be made.
Mark = tuple[list[Tensor], list[Tensor | None]]


def generator_states(device: torch.device) -> list[Tensor]:
    """Return where PyTorch's generators stand for computations on a device; none while a CUDA graph is captured."""
    if device.type == "cpu":
        return [torch.get_rng_state()]
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return []
    # One kind of device has but one generator.
    which = [] if device.type == "mps" else [device]
    return [torch.get_rng_state(), torch.get_device_module(device).get_rng_state(*which)]


def _set_generators(states: list[Tensor], device: torch.device) -> None:
    if states:
        torch.set_rng_state(states[0])
    if len(states) > 1:
        which = [] if device.type == "mps" else [device]
        torch.get_device_module(device).set_rng_state(states[1], *which)


class Replay:
    """Remembers where PyTorch's generators and modules' buffers stood before a forward pass.

    Dropout masks are then drawn again as they were, and batch normalization keeps track of its statistics once a step.

    Args:
        modules: The modules, such as a model and a loss.
        device: Where they compute.

    Raises:
        ValueError: One is TorchScript.
    """

    def __init__(self, modules: Iterable[nn.Module], device: torch.device) -> None:
        each = {id(module): module for whole in modules for module in whole.modules()}
        if any(isinstance(module, torch.jit.ScriptModule) for module in each.values()):
            raise ValueError(
                "a module that the loss or forward=… calls is TorchScript, whose buffers cannot be put back: use the "
                "module that torch.jit was given"
            )
        # Where they stand, as modules may put other tensors there.
        self._places: list[tuple[dict[str, Any], str]] = [
            (module._buffers, name) for module in each.values() for name in module._buffers
        ]
        self._device = device
        self._draws = False
        self._start: Mark = [], []

    @contextmanager
    def recorded(self, is_observed: bool = False) -> Iterator[None]:
        """Remember where things stand; within it runs the forward pass that moves them.

        Args:
            is_observed: Whether somebody may draw random numbers between this pass and later ones, which then see
                others even where this pass leaves generators as it found them, as ``torch.random.fork_rng`` does.

        Raises:
            RuntimeError: The pass draws random numbers while a CUDA graph is captured, which cannot be drawn again.
        """
        generators = generator_states(self._device)
        if self._draws and not generators:
            raise RuntimeError("random layers draw anew at each pass of a captured step: run it eagerly")
        self._start = generators, [None if buffer is None else buffer.clone() for buffer in self._buffers()]
        yield
        if generators:
            self._draws = not all(map(torch.equal, generators, generator_states(self._device)))
            if not (self._draws or is_observed):
                # Setting generators takes longer than a small layer.
                self._start = [], self._start[1]

    @contextmanager
    def replayed(self, start: Mark | None = None) -> Iterator[None]:
        """Within it runs a pass that starts where the recorded one did and leaves everything as it found it.

        Args:
            start: The mark of an earlier pass, if not the last: pieces of a minibatch have one each.
        """
        generators, buffers = start or self._start
        generator_ends = generator_states(self._device) if generators else []
        found = self._buffers()
        _set_generators(generators, self._device)
        ends = self._start_from(buffers)
        try:
            yield
        finally:
            for (place, name), buffer in zip(self._places, found, strict=True):
                place[name] = buffer
            _set_generators(generator_ends, self._device)
            _write(ends)

    def mark(self) -> Mark:
        """Return where the last recorded pass started."""
        return self._start

    def _buffers(self) -> list[Tensor | None]:
        return [place[name] for place, name in self._places]

    def _start_from(self, values: Sequence[Tensor | None]) -> list[tuple[Tensor, Tensor]]:
        """Have the buffers hold values; return what those that were written in place held before."""
        written, before = [], []
        for (place, name), value in zip(self._places, values, strict=True):
            buffer = place[name]
            if value is not None and can_hold(buffer, value):
                written.append((buffer, value))
                before.append((buffer, buffer.clone()))
            else:
                place[name] = None if value is None else value.clone()
        _write(written)
        return before


def _write(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    if pairs:
        # Passes that are still to be differentiated may have kept a buffer, and need not mind: it comes back.
        # Autograd does not notice what is written into its data.
        copy_all([buffer.data for buffer, _ in pairs], [value for _, value in pairs])


@contextmanager
def preserved_buffers(model: nn.Module) -> Iterator[None]:
    """Undo what passes within the block do to the model's buffers, such as batch normalization's statistics."""
    saved = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in saved:
                buffer.copy_(value)
