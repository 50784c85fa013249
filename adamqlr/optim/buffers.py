"""Which buffers of a module can be given values in place."""

import torch
from torch import Tensor


def can_hold(buffer: Tensor | None, value: Tensor) -> bool:
    """Tell whether a buffer can be given a value in place: not one of another shape, nor expanded or sparse ones."""
    return (
        buffer is not None
        and buffer.shape == value.shape
        and buffer.dtype == value.dtype
        and buffer.layout == torch.strided
        and 0 not in buffer.stride()
        and not buffer.is_inference()
    )
