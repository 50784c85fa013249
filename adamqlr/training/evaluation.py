"""Loss and accuracy of a network on whole sets of rows."""

import torch
from torch import Tensor, nn

from adamqlr.optim.passes.losses import Loss
from adamqlr.optim.passes.perceptron import PerceptronPack
from adamqlr.optim.passes.row_losses import RowLoss
from adamqlr.problems.examples import Examples


def count_correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return how many targets are the class of the largest logit, a 0-d tensor.

    Args:
        outputs: Logits of shape (rows, classes, …).
        targets: Class numbers of shape (rows, …).
    """
    return (outputs.argmax(dim=1) == targets).sum()


@torch.no_grad()
def evaluate(model: nn.Module, loss: Loss, rows: Examples, with_accuracy: bool) -> tuple[float, float]:
    """Return mean loss and accuracy (NaN unless asked for) over all targets, the model in evaluation mode."""
    was_training = model.training
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=rows.device)
    correct = torch.zeros((), dtype=torch.int64, device=rows.device)
    compared = 0
    for inputs, targets in rows.chunks():
        outputs = model(inputs)
        total += loss(outputs, targets).double() * len(inputs)
        if with_accuracy:
            correct += count_correct(outputs, targets)
            compared += targets.numel()
    model.train(was_training)
    return float(total) / len(rows), float(correct) / compared if with_accuracy else float("nan")


@torch.no_grad()
def evaluate_pack(
    pack: PerceptronPack, loss: RowLoss, rows: Examples, with_accuracy: bool
) -> tuple[list[float], list[float]]:
    """Return every network's mean loss and accuracy (NaN unless asked for) over all rows."""
    total = torch.zeros(pack.members, dtype=torch.float64, device=rows.device)
    correct = torch.full_like(total, 0.0 if with_accuracy else float("nan"))
    for inputs, targets in rows.chunks():
        outputs = pack(inputs)
        total += loss.value(outputs, targets).double() * len(inputs)
        if with_accuracy:
            correct += (outputs.argmax(dim=-1) == targets).sum(dim=-1)
    return (total / len(rows)).tolist(), (correct / len(rows)).tolist()
