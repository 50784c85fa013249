"""Multilayer perceptrons with their passes written out: affine layers with ReLU between them.

For networks this small the cost of a step is the number of its kernels and what they read, so that

- the tangent pass takes over every layer's input from the forward pass;
- the pre-activations of the first layer are linear in its parameters: after a step they are known without another
  product with the minibatch;
- several networks side by side (:class:`PerceptronPack`) take the same kernels as one.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from adamqlr.optim.flat import FlatParameters
from adamqlr.optim.heuristics import inner_product
from adamqlr.optim.passes.differentiated import DifferentiatedNetwork
from adamqlr.optim.passes.network import Curvature, LocalModel, Observer
from adamqlr.optim.passes.relu import ReluDerivative
from adamqlr.optim.passes.row_losses import RowLoss, flat_rows
from adamqlr.optim.torch_private import global_hooks


class PerceptronPack(nn.Module):
    """Several perceptrons of the same widths side by side, for minibatches of shape (members, rows, features).

    Args:
        networks: Perceptrons, the parameters of which are copied.

    Attributes:
        members: Their number, the first dimension of each parameter.
    """

    def __init__(self, networks: Sequence[nn.Sequential]) -> None:
        super().__init__()
        self.members = len(networks)
        layers = [[layer for layer in network if isinstance(layer, nn.Linear)] for network in networks]
        for index, same in enumerate(zip(*layers, strict=True)):
            self.register_parameter(f"weight_{index}", nn.Parameter(torch.stack([layer.weight.data for layer in same])))
            self.register_parameter(f"bias_{index}", nn.Parameter(torch.stack([layer.bias.data for layer in same])))

    def layers(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Return weight and bias of each layer, of shapes (members, outputs, inputs) and (members, outputs)."""
        parameters = list(self.parameters())
        return list(zip(parameters[0::2], parameters[1::2], strict=True))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return outputs of shape (members, rows, outputs), for each member's rows, or for the same rows (2-d)."""
        features = inputs
        for index, (weight, bias) in enumerate(self.layers()):
            features = affine(torch.relu(features) if index else features, weight, bias)
        return features


def members_of(module: nn.Module) -> torch.Size:
    """Return () for one network, and (members,) for a module that holds several side by side."""
    # Other modules may call anything their members.
    return torch.Size([module.members] if isinstance(module, PerceptronPack) else [])


def affine(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return features · weightᵀ + bias for each of several networks, of the same features (2-d) or of its own."""
    if features.dim() == 3:
        return torch.baddbmm(bias.unsqueeze(-2), features, weight.mT)
    # One product for all networks.
    together = torch.addmm(bias.flatten(), features, weight.flatten(0, 1).mT)
    apart: Tensor = together.unflatten(-1, bias.shape)
    return apart.movedim(-2, 0)


def find_layers(model: nn.Module) -> list[nn.Module] | None:
    """Return the modules whose hooks would be passed over, if ``model`` is a plain perceptron; else None.

    It is one where it is a :class:`PerceptronPack`, or an ``nn.Sequential`` of ``nn.Linear`` with bias and ``nn.ReLU``
    in turn, nothing frozen, shared or parametrized.
    """
    if type(model) is PerceptronPack:
        return [model]
    if type(model) is not nn.Sequential:
        return None
    layers = list(model)
    kinds = [nn.Linear, nn.ReLU] * (len(layers) // 2) + [nn.Linear]
    if [type(layer) for layer in layers] != kinds:
        return None
    expected = [parameter for layer in layers[0::2] for parameter in (layer.weight, layer.bias)]
    found = list(model.parameters())
    same = len(found) == len(expected) and all(one is other for one, other in zip(found, expected, strict=True))
    return [model, *layers] if same and all(parameter.requires_grad for parameter in found) else None


class PerceptronNetwork:
    """A perceptron, or a pack of them.

    Args:
        modules: Modules whose hooks are passed over; where there are any, PyTorch differentiates the network.
        loss: The loss.
        flat: The parameters.
        otherwise: What stands in for minibatches that are not matrices, with hooks, and under autocast.
    """

    def __init__(
        self, modules: Sequence[nn.Module], loss: RowLoss, flat: FlatParameters, otherwise: DifferentiatedNetwork
    ) -> None:
        self.flat, self.loss, self.gradient = flat, loss, otherwise.gradient
        self._otherwise = otherwise
        kinds = ("_forward_hooks", "_forward_pre_hooks")
        self._hooks = [getattr(module, kind) for module in modules for kind in kinds] + global_hooks("forward")
        self._attributes = [module.__dict__ for module in modules]
        parameters = flat.views(flat.buffer)
        self.weights, self.biases = parameters[0::2], parameters[1::2]
        self.transposed = [weight.mT for weight in self.weights]
        self.affine: Callable[[Tensor, Tensor, Tensor], Tensor] = affine if flat.members else linear

    def forward(self, layer: int, features: Tensor) -> Tensor:
        """Return a layer's outputs for its inputs."""
        if self.flat.members:
            return affine(features, self.weights[layer], self.biases[layer])
        return torch.addmm(self.biases[layer], features, self.transposed[layer])

    def differentiate(self, inputs: Any, targets: Any) -> Tensor:
        """Set g and return L(θ; B)."""
        if not self._applies_to(inputs, targets):
            return self._otherwise.differentiate(inputs, targets)
        return PerceptronModel(self, inputs, targets).loss

    def linearize(
        self, inputs: Any, targets: Any, curvature: Curvature, observer: Observer | None = None
    ) -> LocalModel:
        """Set g and return a model of the loss."""
        if not self._applies_to(inputs, targets):
            return self._otherwise.linearize(inputs, targets, curvature, observer)
        local = PerceptronModel(self, inputs, targets, curvature)
        if observer is not None:
            observer.begin(local.cases)
            observer.observe(local)
            observer.end(None)
        return local

    def _applies_to(self, inputs: Any, targets: Any) -> bool:
        return self.flat.members != () or (
            isinstance(inputs, Tensor)
            and inputs.dim() == 2
            and inputs.dtype == self.flat.buffer.dtype
            and inputs.layout == torch.strided
            and not inputs.requires_grad
            and isinstance(targets, Tensor)
            and not targets.requires_grad
            and self.loss.takes(targets)
            and not torch.is_autocast_enabled(inputs.device.type)
            and not any(self._hooks)
            and not any("forward" in attributes for attributes in self._attributes)
        )


class PerceptronModel:
    """The loss of a perceptron around its parameters: forward and backward passes are run when it is made.

    Args:
        network: The perceptron; its gradient is set.
        inputs: Shape (…, rows, features).
        targets: As the loss wants them.
        curvature: Which matrix C is.

    Attributes:
        loss: L(θ; B).
        inputs: Every layer's inputs.
        outputs: The network's outputs.
        unresolved: None, as all is of one precision.
        targets: As given.
        cases: Rows of each network.
    """

    unresolved: Tensor | None = None

    def __init__(
        self,
        network: PerceptronNetwork,
        inputs: Tensor,
        targets: Tensor,
        curvature: Curvature = "fisher",
    ) -> None:
        self._network, self.targets, self._curvature = network, targets, curvature
        features = [inputs]
        self.inputs: Sequence[Tensor] = features
        self.cases = inputs.shape[-2]
        # Of the ReLU behind each layer but the last.
        self._relus: list[ReluDerivative] = []
        self._first = current = network.forward(0, inputs)
        for layer in range(1, len(network.weights)):
            # ReLU, by the name under which PyTorch can write it to a place.
            features.append(torch.clamp_min(current, 0.0))
            self._relus.append(ReluDerivative(features[layer]))
            current = network.forward(layer, features[layer])
        self.outputs = current
        self.loss, self._cotangent, self._output_hessian = network.loss.differentiate(current, targets)
        gradients = network.gradient.views
        for layer, delta in self._deltas(self._cotangent):
            _matmul_into(gradients[2 * layer], delta, features[layer])
            torch.sum(delta, dim=-2, out=gradients[2 * layer + 1])
        # The same gradient may have served passes in which hooks left something out.
        network.gradient.note_unused([])
        network.gradient.publish()

    def _deltas(self, delta: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield every layer's number and the δ of its outputs, from the last layer, whose δ is given, to the first."""
        weights = self._network.weights
        layer = len(weights) - 1
        yield layer, delta
        while layer > 0:
            delta = self._relus[layer - 1].times_(torch.matmul(delta, weights[layer]))
            layer -= 1
            yield layer, delta

    def back_propagate(self, cotangent: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Return δ of each layer's outputs for a δ of the network's."""
        return [delta for _, delta in self._deltas(cotangent)][::-1], ()

    def curvature(self, directions: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """Return vᵢᵀ C vⱼ, for directions of one tensor a parameter each."""
        tangents = [self._tangents(direction) for direction in directions]
        self._first_tangents = [found[0] for found in tangents]
        forms = self._output_hessian([found[-1] for found in tangents])
        if self._curvature == "fisher" or len(self.inputs) == 1:
            return forms
        cotangent, along = flat_rows(self._cotangent), list(zip(directions, tangents, strict=True))
        return [
            [
                form + (1 + (one is other)) * inner_product(cotangent, flat_rows(self._second_tangent(*one, *other)))
                for form, other in zip(row, along, strict=True)
            ]
            for row, one in zip(forms, along, strict=True)
        ]

    def _tangents(self, direction: Sequence[Tensor]) -> list[Tensor]:
        """Return the derivatives of every layer's outputs along v; those of the last layer are J v."""
        tangents: list[Tensor] = []
        for layer, features in enumerate(self.inputs):
            tangent = self._network.affine(features, direction[2 * layer], direction[2 * layer + 1])
            if layer:
                tangent = _add_product(
                    tangent, self._relus[layer - 1].times(tangents[-1]), self._network.transposed[layer]
                )
            tangents.append(tangent)
        return tangents

    def _second_tangent(
        self, first: Sequence[Tensor], tangents: Sequence[Tensor], other: Sequence[Tensor], others: Sequence[Tensor]
    ) -> Tensor:
        """Return the outputs' second derivatives along two directions, half of them where both are the same.

        ReLU, linear in pieces, adds nothing to them.
        """
        second: Tensor | None = None
        for layer in range(1, len(self.inputs)):
            mixed = torch.matmul(self._relus[layer - 1].times(tangents[layer - 1]), other[2 * layer].mT)
            if first is not other:
                mixed = _add_product(mixed, self._relus[layer - 1].times(others[layer - 1]), first[2 * layer].mT)
            if second is not None:
                mixed = _add_product(mixed, self._relus[layer - 1].times(second), self._network.transposed[layer])
            second = mixed
        assert second is not None
        return second

    def loss_after(self, weights: Sequence[Tensor]) -> Tensor:
        """Return the loss where the parameters have moved by V w."""
        network, current = self._network, self._first
        for tangent, weight in zip(self._first_tangents, weights, strict=True):
            current.addcmul_(tangent, weight[:, None, None] if weight.dim() else weight)
        for layer in range(1, len(network.weights)):
            current = network.forward(layer, current.relu_())
        return network.loss.value(current, self.targets)


def _add_product(total: Tensor, features: Tensor, transposed: Tensor) -> Tensor:
    """Add features · weightᵀ to ``total``, in place."""
    return total.addmm_(features, transposed) if total.dim() == 2 else total.baddbmm_(features, transposed)


def _matmul_into(gradient: Tensor, delta: Tensor, features: Tensor) -> None:
    """Set ``gradient`` to δᵀ · features; networks side by side may share their features."""
    if features.shape[-1] < delta.shape[-1]:
        # Products over many rows whose result is narrow take a fraction of the time the other way around.
        gradient.copy_(torch.matmul(features.mT, delta).mT)
    elif features.dim() < delta.dim():
        gradient.copy_(torch.matmul(delta.mT, features))
    else:
        torch.matmul(delta.mT, features, out=gradient)
