"""What a model returns, as its loss takes it."""

from typing import Any

import torch
from torch import Tensor

from adamqlr.optim.passes.losses import Loss

FLOAT16_REFUSED = "float16 needs its loss scaled, which the step cannot do: use torch.autocast(…, dtype=torch.bfloat16)"


def checked_outputs(outputs: Any, dtype: torch.dtype) -> Tensor:
    """Return a model's outputs; those of autocast within the model in the parameters' precision.

    Autocast around the step does likewise: it computes losses in single precision.

    Args:
        outputs: What the model returned.
        dtype: The parameters' precision.

    Raises:
        TypeError: It is no tensor.
        ValueError: It is complex.
        RuntimeError: It is of float16, which needs the loss to be scaled.
    """
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"the model returned a {type(outputs).__name__}, not a tensor: give the optimizer what the loss takes, "
            "say forward=lambda model, inputs: model(**inputs).logits"
        )
    if outputs.dtype == dtype:
        return outputs
    if outputs.dtype == torch.float16:
        raise RuntimeError(FLOAT16_REFUSED)
    if outputs.is_complex():
        raise ValueError(
            f"the model's outputs are {outputs.dtype}: return real numbers, such as torch.view_as_real(outputs)"
        )
    is_of_model = outputs.dtype == torch.bfloat16 and not torch.is_autocast_enabled(outputs.device.type)
    return outputs.to(dtype) if is_of_model else outputs


def low_precision_of(outputs: Any) -> torch.dtype | None:
    """Return the precision in which outputs came, if the loss resolves more than that; else None."""
    return outputs.dtype if isinstance(outputs, Tensor) and outputs.dtype == torch.bfloat16 else None


def unresolved_change(outputs: Tensor, cotangent: Tensor, loss: Loss, targets: Any, precision: torch.dtype) -> Tensor:
    """Return by how much the loss changes where outputs do by units of their last place, with signs by chance.

    That is of first order and of second: pieces of a minibatch add up by their squares, and as they are.

    Args:
        outputs: The outputs.
        cotangent: The loss's derivative in them.
        loss: The loss.
        targets: As it takes them.
        precision: In which the outputs came.
    """
    outputs = outputs.detach()
    units = outputs.abs() * (0.5 * torch.finfo(precision).eps)
    curved = loss.hessian_vector_product(outputs, targets, units)
    # Once a minibatch is fitted, the derivative has vanished and the curvature has not.
    first = torch.linalg.vector_norm(units.float() * cotangent.detach())
    return torch.stack([first, 0.5 * (units.float() * curved).sum().abs()])
