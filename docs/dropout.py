"""Print what a schedule does to AdamQLR on a network with dropout: held-out loss on scikit-learn's digits.

python docs/dropout.py, from the repository's root; half a minute.
"""

import statistics
from collections.abc import Callable
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from adamqlr import QLR, AdamQLR

EPOCHS, ROWS, TRAINING, SEEDS = 60, 200, 1200, range(5)


def adam(model: nn.Module) -> Callable[[Tensor, Tensor], Any]:
    """Return a step of PyTorch's Adam."""
    optimizer = torch.optim.Adam(model.parameters())

    def step(inputs: Tensor, targets: Tensor) -> None:
        optimizer.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        optimizer.step()

    return step


def scheduled(optimizer: QLR, steps: int) -> Callable[[Tensor, Tensor], Any]:
    """Return a step with a cosine on top of the model's learning rate."""
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def step(inputs: Tensor, targets: Tensor) -> Any:
        info = optimizer.step(inputs, targets)
        schedule.step()
        return info

    return step


def held_out_loss(make: Callable[[nn.Module], Callable[[Tensor, Tensor], Any]], seed: int) -> float:
    """Train a network, and return its loss on rows that it has not seen."""
    torch.manual_seed(seed)
    digits = load_digits()
    inputs = torch.tensor(digits.data / 16, dtype=torch.float32)
    targets = torch.tensor(digits.target, dtype=torch.int64)
    order = torch.randperm(len(inputs))
    training, held_out = order[:TRAINING], order[TRAINING:]
    model = nn.Sequential(nn.Linear(64, 50), nn.ReLU(), nn.Dropout(0.2), nn.Linear(50, 10))
    step = make(model)
    for _ in range(EPOCHS):
        for rows in training[torch.randperm(TRAINING)].split(ROWS):
            step(inputs[rows], targets[rows])
    model.eval()
    with torch.no_grad():
        return float(cross_entropy(model(inputs[held_out]), targets[held_out]))


def main() -> None:
    """Compare."""
    # Sums over another number of threads round otherwise, which the long steps of the second amplify.
    torch.set_num_threads(1)
    steps = EPOCHS * TRAINING // ROWS
    contenders = {
        "Adam": adam,
        "AdamQLR": lambda model: AdamQLR(model, "cross_entropy").step,
        "AdamQLR, cosine schedule": lambda model: scheduled(AdamQLR(model, "cross_entropy"), steps),
        "AdamQLR, lr_clipping=0.003": lambda model: AdamQLR(model, "cross_entropy", lr_clipping=0.003).step,
    }
    for name, make in contenders.items():
        losses = [held_out_loss(make, seed) for seed in SEEDS]
        print(f"{name:28s} {statistics.median(losses):.3f}  ({min(losses):.3f} to {max(losses):.3f})")


if __name__ == "__main__":
    main()
