"""Tensors that never change, made once: small kernels take three times as long with numbers instead."""

from functools import cache, lru_cache

import torch
from torch import Tensor


@cache
def constant(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a number as a 0-d tensor."""
    return torch.tensor(value, dtype=dtype, device=device)


@lru_cache(maxsize=8)
def ones(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a vector of ones; a product with it is a sum. Not for CUDA graphs, which do not keep it."""
    return torch.ones(length, dtype=dtype, device=device)
