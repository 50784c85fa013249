"""Draw docs/step.png: the loss along Adam's direction, the quadratic model of it, and the step that is taken.

python docs/draw_step.py, from the repository's root; steps of AdamQLR on scikit-learn's digits.
"""

import copy

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from adamqlr import AdamQLR

SHOWN = (1, 3, 17)


def main() -> None:
    """Train, and draw three of the steps."""
    torch.manual_seed(0)
    digits = load_digits()
    inputs = torch.tensor(digits.data / 16, dtype=torch.float64)
    targets = torch.tensor(digits.target, dtype=torch.int64)
    model = nn.Sequential(nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 10)).double()
    optimizer = AdamQLR(model, "cross_entropy")
    figure, axes = plt.subplots(1, len(SHOWN), figsize=(9.5, 2.9), layout="constrained")
    panels = iter(axes)
    for step in range(1, max(SHOWN) + 1):
        rows = torch.randperm(len(inputs))[:400]
        before = copy.deepcopy(model)
        damping = float(optimizer.damping)
        info = optimizer.step(inputs[rows], targets[rows])
        if step in SHOWN:
            panel = next(panels)
            draw(panel, before, model, inputs[rows], targets[rows], info)
            change = "shrinks" if info.damping < damping else "grows" if info.damping > damping else "stays"
            panel.set_title(f"step {step}: ρ = {info.rho:.2f}, λ {change}", fontsize=10)
    axes[0].set_ylabel("loss on the minibatch")
    axes[0].legend(fontsize=8, loc="upper center")
    figure.savefig("docs/step.png", dpi=160)


def draw(axes, before, after, inputs, targets, info) -> None:
    """Draw one step: the loss and its model along the line through both networks."""
    start, end = (nn.utils.parameters_to_vector(m.parameters()).detach() for m in (before, after))
    scales = np.linspace(-0.15, 2.2, 60)
    line = copy.deepcopy(before)
    losses = []
    for scale in scales:
        nn.utils.vector_to_parameters(start + float(scale) * (end - start), line.parameters())
        losses.append(float(cross_entropy(line(inputs), targets).detach()))
    rates = scales * float(info.lr)
    model = float(info.loss) - float(info.grad_dot_direction) * rates + 0.5 * float(info.curvature) * rates**2
    axes.plot(rates, losses, label="L(θ − αd)")
    axes.plot(rates, model, "--", label="M(θ − αd)")
    axes.plot(0, float(info.loss), "o", color="black", markersize=4)
    axes.plot(float(info.lr), float(info.loss + info.true_change), "o", color="C0", markersize=5)
    axes.axvline(float(info.lr), color="gray", linewidth=0.8, linestyle=":")
    axes.set_xlabel("learning rate α")
    axes.annotate(f" α = {float(info.lr):.2g}", (float(info.lr), axes.get_ylim()[0]), fontsize=8, va="bottom")


if __name__ == "__main__":
    main()
