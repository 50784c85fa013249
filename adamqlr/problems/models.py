"""The study's networks (paper, appendix B.1)."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from adamqlr.study.settings import DatasetConfig

RESNETS = ("resnet18", "resnet50")


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """Return a multilayer perceptron with ReLU between its layers.

    Weights are truncated normal within ±2σ with σ = 1/√fan_in, biases zero, as in the paper's code.

    Args:
        widths: Sizes of the input, the hidden layers and the output.
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        linear = nn.Linear(fan_in, fan_out)
        sigma = 1 / math.sqrt(fan_in)
        nn.init.trunc_normal_(linear.weight, std=sigma, a=-2 * sigma, b=2 * sigma)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def new_model(settings: DatasetConfig, input_shape: torch.Size, outputs: int) -> nn.Module:
    """Return the configured network for tables or images, freshly initialized.

    Args:
        settings: Which network.
        input_shape: Shape of one row: (features,) for an MLP, (channels, height, width) for a ResNet.
        outputs: Number of its outputs.
    """
    if settings.model == "mlp":
        return mlp([math.prod(input_shape), *settings.hidden, outputs])
    # Its import takes as long as PyTorch's, which most jobs need not wait for.
    import torchvision

    model: nn.Module = torchvision.models.get_model(settings.model, num_classes=outputs)
    channels = input_shape[0]
    if channels != 3:
        model.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    return model
