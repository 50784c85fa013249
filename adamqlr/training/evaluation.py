"""Loss and accuracy of a network on whole sets of rows."""

import torch
from torch import Tensor, nn

from adamqlr.optim.losses import Loss
from adamqlr.problems.problem import Rows

# Chunks of about this many input elements keep activations of convolutional networks within memory.
_CHUNK_ELEMENTS = 4_000_000


def count_correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return how many rows' largest logit is their class, a 0-d tensor."""
    return (outputs.argmax(dim=1) == targets).sum()


@torch.no_grad()
def evaluate(model: nn.Module, loss: Loss, rows: Rows, with_accuracy: bool) -> tuple[float, float]:
    """Return mean loss and accuracy (NaN unless asked for) over all rows, the model in evaluation mode."""
    chunk = max(1, _CHUNK_ELEMENTS // max(1, rows.inputs[0].numel()))
    was_training = model.training
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=rows.inputs.device)
    correct = torch.zeros((), dtype=torch.int64, device=rows.inputs.device)
    for inputs, targets in zip(rows.inputs.split(chunk), rows.targets.split(chunk), strict=True):
        outputs = model(inputs)
        total += loss(outputs, targets).double() * len(inputs)
        if with_accuracy:
            correct += count_correct(outputs, targets)
    model.train(was_training)
    return float(total) / len(rows), float(correct) / len(rows) if with_accuracy else float("nan")
