"""Optimizers whose step is wrapped, as PyTorch wraps every optimizer's, only where somebody watches."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.optim import optimizer as _torch


class WatchedOptimizer(torch.optim.Optimizer, ABC):
    """An optimizer whose step sees the minibatch.

    PyTorch wraps ``step`` of every optimizer with a profiler's record and hooks, which takes a tenth of a small
    network's step; here that is left out unless a profiler runs or a hook is registered.
    """

    def step(self, inputs: Tensor, targets: Tensor) -> Any:  # type: ignore[override]
        """Take one step on a minibatch.

        Args:
            inputs: What the model is called with; its first dimension is the batch.
            targets: What the loss compares the outputs with.

        Returns:
            What the step found, as 0-d tensors on the parameters' device.

        Raises:
            ValueError: The minibatch is empty.
        """
        watched = (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _torch._global_optimizer_pre_hooks
            or _torch._global_optimizer_post_hooks
            or torch.autograd._profiler_enabled()
        )
        return self._watched_step(inputs, targets) if watched else self._take_step(inputs, targets)

    # PyTorch takes a step with this mark for one that it has wrapped.
    step.hooked = True  # type: ignore[attr-defined]

    @abstractmethod
    def _take_step(self, inputs: Tensor, targets: Tensor) -> Any:
        """Take the step itself."""

    @torch.optim.Optimizer.profile_hook_step
    def _watched_step(self, inputs: Tensor, targets: Tensor) -> Any:
        return self._take_step(inputs, targets)
