"""Adam's direction (Kingma & Ba 2015)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from adamqlr.optim.flat import FlatGradient, FlatParameters
from adamqlr.optim.options import require
from adamqlr.optim.state import State
from adamqlr.optim.torch_private import fused_adam


def resume_moments(flat: FlatParameters, state: State, moment: Tensor, second_moment: Tensor) -> None:
    """Have moments of parameters that were frozen for a while stand for the same means at the common count of steps."""
    steps = state.group["step"].double()
    for place, seen in state.returned("step").items():
        for vector, beta in zip((moment, second_moment), state.group["betas"], strict=True):
            flat.views(vector)[place].mul_((1 - beta**steps) / (1 - beta ** seen.double()))


@contextmanager
def unused_moments_stay(
    gradient: FlatGradient, moments: Sequence[Tensor], betas: Sequence[float], step: Tensor
) -> Iterator[None]:
    """Within it moments take a step; those of parameters that the minibatch did not use go on to stand for their means.

    Args:
        gradient: The minibatch's.
        moments: The moments.
        betas: Their decay rates.
        step: The count of steps, this one included.
    """
    with gradient.unused_stay(*moments):
        yield
    if gradient.may_leave_unused:
        count = step.double()
        for moment, beta in zip(moments, betas, strict=True):
            grown = torch.where(count > 1, (1 - beta**count) / (1 - beta ** (count - 1)), 1).to(moment.dtype)
            gradient.scale_unused(moment, grown)
            # Of those that no process uses, the gradient was zero, and the moments have decayed by now.
            gradient.scale_unused_anywhere(moment, grown / beta if beta else grown)


class AdamDirection:
    """d = m̂ / (√v̂ + ε).

    Args:
        betas: Decay rates β₁, β₂ of the moments.
        eps: ε.

    Raises:
        ValueError: An argument is out of its range.
    """

    capturable = True

    def __init__(self, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.defaults: Mapping[str, Any] = {"betas": betas, "eps": eps}
        self.check_options(self.defaults)

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse options that are out of their range."""
        betas, eps = options["betas"], options["eps"]
        require(all(0 <= beta < 1 for beta in betas), "betas", "in [0, 1)", betas)
        require(eps >= 0, "eps", "at least 0", eps)

    def bind(self, flat: FlatParameters, state: State) -> None:
        """Take up the moments."""
        self._group = state.group
        self._moment, self._second_moment = state.vector("exp_avg"), state.vector("exp_avg_sq")
        self._step = state.counter("step")
        resume_moments(flat, state, self._moment, self._second_moment)
        # A sum of tensors takes a third of the time of one with Python's numbers.
        self._one = torch.ones_like(self._step)

    def __getstate__(self) -> dict[str, Any]:
        """Return what copying keeps: the moments are the optimizer's."""
        return {"defaults": self.defaults}

    def propose(self, gradient: FlatGradient, damping: Tensor, out: Tensor) -> None:
        """Update the moments and write d into ``out``."""
        out.zero_()
        self._step.add_(self._one)
        moments, betas = (self._moment, self._second_moment), self._group["betas"]
        with unused_moments_stay(gradient, moments, betas, self._step):
            # One fused Adam step of size −1 from the origin lands on d.
            fused_adam(out, gradient.buffer, *moments, self._step, lr=-1.0, betas=betas, eps=self._group["eps"])
