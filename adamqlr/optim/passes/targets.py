"""What targets must be for a loss that compares them with outputs element by element."""

import torch
from torch import Tensor


def check_same_shape(outputs: Tensor, targets: Tensor) -> None:
    """Raise a ValueError unless outputs and targets have one shape: broadcasting would compute another loss."""
    if outputs.shape != targets.shape:
        raise ValueError(f"outputs of shape {tuple(outputs.shape)} but targets of {tuple(targets.shape)}")
    check_precision(outputs, targets)


def check_precision(outputs: Tensor, targets: Tensor) -> None:
    """Raise a ValueError where targets would turn the loss of single-precision outputs into double precision."""
    if targets.dtype == torch.float64 != outputs.dtype:
        raise ValueError(f"outputs are {outputs.dtype} but targets torch.float64: convert them with targets.float()")
