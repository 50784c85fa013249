"""Loss and accuracy on whole sets of rows, of one network or of several side by side."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from adamqlr.optim.passes.perceptron import members_of
from adamqlr.optim.passes.replay import preserved_buffers
from adamqlr.problems.examples import Examples

# Mean loss of outputs and targets, of shape members.
MeanLoss = Callable[[Tensor, Tensor], Tensor]


def count_correct(model: nn.Module, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return how many targets are the class of the largest logit, of shape members.

    Args:
        model: The network, or networks side by side.
        outputs: Logits of shape (rows, classes, …); of shape (members, rows, classes) for networks side by side.
        targets: Class numbers of shape (rows, …), or (members, rows).
    """
    if members_of(model):
        return (outputs.argmax(dim=-1) == targets).sum(dim=-1)
    return (outputs.argmax(dim=1) == targets).sum()


def count_targets(model: nn.Module, targets: Tensor) -> int:
    """Return how many targets of :func:`count_correct` each network has."""
    return targets.shape[-1] if members_of(model) else targets.numel()


@torch.no_grad()
def evaluate(model: nn.Module, loss: MeanLoss, rows: Examples, with_accuracy: bool) -> tuple[list[float], list[float]]:
    """Return mean loss and accuracy (NaN unless asked for) over all targets, one number a network.

    The model is in evaluation mode meanwhile.
    """
    was_training = model.training
    model.eval()
    total = torch.zeros(members_of(model), dtype=torch.float64, device=rows.device)
    correct = torch.zeros(members_of(model), dtype=torch.int64, device=rows.device)
    compared = 0
    for inputs, targets in rows.chunks():
        outputs = model(inputs)
        total += loss(outputs, targets).double() * len(inputs)
        if with_accuracy:
            correct += count_correct(model, outputs, targets)
            compared += count_targets(model, targets)
    model.train(was_training)
    losses = [value / len(rows) for value in total.reshape(-1).tolist()]
    if not with_accuracy:
        return losses, [float("nan")] * len(losses)
    return losses, [value / compared for value in correct.reshape(-1).tolist()]


def evaluate_sets(
    model: nn.Module, loss: MeanLoss, sets: Mapping[str, Examples], with_accuracy: bool
) -> dict[str, list[float]]:
    """Return losses and accuracies of whole sets of rows, as metrics by their names, one number a network."""
    metrics = {}
    for name, rows in sets.items():
        metrics[f"{name}_loss"], metrics[f"{name}_accuracy"] = evaluate(model, loss, rows, with_accuracy)
    return metrics


@torch.no_grad()
def minibatch_accuracies(model: nn.Module, inputs: Tensor, targets: Tensor) -> list[float]:
    """Return accuracies on a minibatch, one number a network; the model's buffers stay as they are."""
    with preserved_buffers(model):
        correct = count_correct(model, model(inputs), targets)
    return [count / count_targets(model, targets) for count in correct.reshape(-1).tolist()]
