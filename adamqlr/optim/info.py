"""What steps find."""

from typing import NamedTuple

from torch import Tensor


class GradientInfo(NamedTuple):
    """What one step found, as 0-d tensors on the parameters' device; of shape (members,) for networks side by side.

    Attributes:
        loss: L(θ; B) before the step.
        lr: α, the learning rate taken.
    """

    loss: Tensor
    lr: Tensor


class QLRInfo(NamedTuple):
    """What one step found, as 0-d tensors on the parameters' device; of shape (members,) for networks side by side.

    With learning rate, momentum and damping all fixed there is no quadratic model: ``curvature``, ``rho``,
    ``model_change`` and ``true_change`` are NaN.

    Attributes:
        loss: L(θ; B) before the step.
        lr: α = −w₁, the learning rate taken.
        curvature: v₁ᵀ (C + λ I) v₁, with the damping from before the step.
        grad_dot_direction: gᵀv₁.
        damping: λ after the step.
        rho: ρ = true_change / model_change; NaN where both vanish.
        model_change: M(θ + V w) − M(θ), for K-FAC without damping.
        true_change: L(θ + V w; B) − L(θ; B).
        momentum: w₂; 0 for one direction.
        taken: Whether the step was taken; False where ``on_nonfinite="skip"`` refused it.
    """

    loss: Tensor
    lr: Tensor
    curvature: Tensor
    grad_dot_direction: Tensor
    damping: Tensor
    rho: Tensor
    model_change: Tensor
    true_change: Tensor
    momentum: Tensor
    taken: Tensor
