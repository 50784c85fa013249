"""The minimum of a quadratic model in the two directions that K-FAC combines."""

import torch
from torch import Tensor


def minimize_quadratic(matrix: Tensor, slopes: Tensor, lr: Tensor | None, momentum: Tensor | None) -> Tensor:
    """Return w that minimizes ½ wᵀ (Q + λD) w + bᵀw over what is not fixed.

    A direction that has vanished (the previous update, at the first step) gets the weight 0.

    Args:
        matrix: Q + λD, of shape (2, 2).
        slopes: b, of shape (2,).
        lr: Fixed −w₁, or None.
        momentum: Fixed w₂, or None.
    """
    vanished = (matrix.diagonal() == 0) & (slopes == 0)
    (q00, q01), (q10, q11) = (matrix + torch.diag(vanished.to(matrix.dtype))).unbind(0)
    b0, b1 = slopes.unbind(0)
    if lr is None and momentum is None:
        determinant = q00 * q11 - q01 * q10
        return torch.stack([q01 * b1 - q11 * b0, q10 * b0 - q00 * b1]) / determinant
    if lr is None:
        assert momentum is not None
        return torch.stack([-(b0 + q01 * momentum) / q00, momentum])
    if momentum is None:
        return torch.stack([-lr, (q10 * lr - b1) / q11])
    return torch.stack([-lr, momentum])
