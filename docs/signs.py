"""A direction of one's own, the sign of a running mean of gradients; workflow/config/own.yaml has heuristics on it."""

import torch


class Signs:
    """Whatever a parameter's mean gradient is, its step has the same length; the heuristics choose which.

    Args:
        beta: How much of the running mean stays at every step.
    """

    def __init__(self, beta: float = 0.9) -> None:
        self.defaults = {"beta": beta}

    def bind(self, flat, state):
        """Get ready for parameters; the mean is saved and loaded with the optimizer."""
        self.group, self.mean = state.group, state.vector("mean")

    def propose(self, gradient, damping, out):
        """Write the direction."""
        self.mean.lerp_(gradient.buffer, 1 - self.group["beta"])
        torch.sign(self.mean, out=out)
