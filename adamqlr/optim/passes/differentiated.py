"""Any module's passes, by PyTorch's differentiation (paper, section 3.1).

The gradient g = Jᵀu is linear in the cotangent u = ∂L/∂outputs, so the derivative of vᵀg in u is J v: a
Jacobian–vector product costs one tangent pass over activations that are there already, for any network that can be
differentiated twice.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from adamqlr.optim.flat import FlatGradient, FlatParameters
from adamqlr.optim.passes.custom_functions import (
    CustomFunctions,
    refuse_loss_of_parameters,
    refuse_wrong_derivatives,
)
from adamqlr.optim.passes.layer_record import RecordedLayers, recorded_layers
from adamqlr.optim.passes.losses import Loss
from adamqlr.optim.passes.network import Curvature, Forward, LocalModel, Observer, call_model, count_rows, has_rows
from adamqlr.optim.passes.outputs import FLOAT16_REFUSED, checked_outputs, low_precision_of, unresolved_change
from adamqlr.optim.passes.reached_modules import reached_modules
from adamqlr.optim.passes.replay import Replay
from adamqlr.optim.passes.second_derivatives import MissingDerivativesExplained
from adamqlr.optim.passes.side_effects import SideEffects
from adamqlr.optim.passes.tangents import cheap_tangents, plain_attention
from adamqlr.optim.torch_private import reentrant_checkpointing_refused, versions

_NO_PARAMETER = (
    "the model's outputs depend on no trained parameter: do not detach them or compute them under torch.no_grad"
)


@contextmanager
def _without_gradients() -> Iterator[None]:
    """Disable gradients, and say what to do where a model needs them to compute its outputs."""
    try:
        with torch.no_grad():
            yield
    except RuntimeError as error:
        if "does not require grad" not in str(error):
            raise
        raise RuntimeError(
            "the model differentiates in its forward pass, where gradients are off for the loss after the step: have "
            "it do so within torch.enable_grad()"
        ) from error


def _value_of_leaf(loss: Loss, leaf: Tensor, targets: Any) -> Tensor:
    """Return the loss of outputs without a graph; refuse one that writes into them, as H is found at them later."""
    before = versions([leaf])
    try:
        value = loss(leaf, targets)
    except RuntimeError as error:
        if "leaf Variable that requires grad" not in str(error):
            raise
        raise ValueError("the loss writes into the outputs, or its own parameters: clone them there") from error
    if versions([leaf]) != before:
        raise ValueError("the loss writes into the outputs: clone them there")
    return value


class Linearization:
    """A network on one minibatch, to first order around the current parameters, with its graph.

    Args:
        outputs: The network's outputs, with their graph.
        loss: The loss.
        parameters: What is trained.
        targets: As the loss takes them.
        precision: In which the outputs came, if the loss resolves more than that.

    Attributes:
        loss: L(θ; B), a 0-d tensor.
        outputs: The network's outputs, detached.
        gradients: g, a tensor for each parameter; None for those that the outputs do not depend on.
        unresolved: What a unit of the outputs' last place is for the loss, as of
            :func:`~adamqlr.optim.passes.outputs.unresolved_change`; None where that resolves no more.
    """

    def __init__(
        self,
        outputs: Tensor,
        loss: Loss,
        parameters: Sequence[Tensor],
        targets: Any,
        precision: torch.dtype | None = None,
    ) -> None:
        self.outputs = outputs.detach()
        leaf = outputs.detach().requires_grad_()
        value = _value_of_leaf(loss, leaf, targets)
        # At every step: penalties may be added later. The network's own graph is too large for that.
        refuse_loss_of_parameters(value, parameters)
        (cotangent,) = torch.autograd.grad(value, leaf)
        self.loss = value.detach()
        self._loss, self._targets = loss, targets
        self._cotangent = cotangent.detach().requires_grad_()
        given = self.outputs, cotangent, loss, targets
        self.unresolved = None if precision is None else unresolved_change(*given, precision)
        with MissingDerivativesExplained():
            self.gradients = torch.autograd.grad(
                outputs, parameters, self._cotangent, create_graph=True, allow_unused=True
            )

    def jacobian_vector_product(self, direction: Sequence[Tensor], last: bool = True) -> Tensor:
        """Return J v, of the shape of the outputs.

        Args:
            direction: v, a tensor for each parameter.
            last: Whether no further product is wanted, so that the graph can be freed.

        Raises:
            RuntimeError: An operation of the network has no second derivatives; the message says which.
        """
        gradients, directions = _with_history(self.gradients, direction)
        with MissingDerivativesExplained():
            (product,) = torch.autograd.grad(gradients, self._cotangent, directions, retain_graph=not last)
        return product

    def curvature(self, directions: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """Return vᵢᵀ C vⱼ for the Fisher C = E[Jᵀ H J] of exactly the loss, its averaging included."""
        final = len(directions) - 1
        tangents = [self.jacobian_vector_product(v, last=index == final) for index, v in enumerate(directions)]
        curved = [self._loss.hessian_vector_product(self.outputs, self._targets, tangent) for tangent in tangents]
        vectors = [_number(tangent).flatten() for tangent in tangents]
        # A loss may compute in another precision.
        products = [_number(product).flatten().to(vectors[0].dtype) for product in curved]
        return [[torch.dot(vector, product) for product in products] for vector in vectors]


class HessianLinearization:
    """The loss of a network on one minibatch, to second order around the current parameters, with its graph.

    Attributes:
        loss: L(θ; B), a 0-d tensor.
        gradients: g, a tensor for each parameter; None for those that the loss does not depend on.
        unresolved: As of :class:`Linearization`.
    """

    def __init__(
        self,
        outputs: Tensor,
        loss: Loss,
        parameters: Sequence[Tensor],
        targets: Any,
        precision: torch.dtype | None = None,
    ) -> None:
        self._parameters, self.unresolved = parameters, None
        value = loss(outputs, targets)
        wanted = [*parameters] if precision is None else [*parameters, outputs]
        with MissingDerivativesExplained("a network and a loss"):
            found = torch.autograd.grad(value, wanted, create_graph=True, allow_unused=True)
        self.loss, self.gradients = value.detach(), found[: len(parameters)]
        if precision is not None:
            self.unresolved = unresolved_change(outputs, found[-1], loss, targets, precision)

    def curvature(self, directions: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """Return vᵢᵀ ∇²L vⱼ; frees the graph.

        Raises:
            RuntimeError: An operation of the network has no second derivatives; the message says which.
        """
        final = len(directions) - 1
        products = [self._product(direction, index == final) for index, direction in enumerate(directions)]
        return [[_sum_of_products(product, other) for other in directions] for product in products]

    def _product(self, direction: Sequence[Tensor], last: bool) -> Sequence[Tensor]:
        gradients, directions = _with_history(self.gradients, direction)
        if not gradients:
            # Of a linear loss of a linear network.
            return [torch.zeros_like(parameter) for parameter in self._parameters]
        with MissingDerivativesExplained("a network and a loss"):
            return torch.autograd.grad(
                gradients,
                self._parameters,
                directions,
                retain_graph=not last,
                allow_unused=True,
                materialize_grads=True,
            )


def _check_some(gradients: Sequence[Tensor | None]) -> None:
    if all(gradient is None for gradient in gradients):
        raise ValueError(_NO_PARAMETER)


def _with_history(gradients: Sequence[Tensor | None], direction: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the gradients that can be differentiated, and the direction's parts beside them."""
    pairs = [(g, d) for g, d in zip(gradients, direction, strict=True) if g is not None and g.requires_grad]
    return [gradient for gradient, _ in pairs], [part for _, part in pairs]


def _sum_of_products(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    return torch.stack([(one * other).sum() for one, other in zip(first, second, strict=True)]).sum()


def _number(tensor: Tensor) -> Tensor:
    """Return a tensor in a precision that sums can be taken in: autocast's is not."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


class DifferentiatedNetwork:
    """Any module, differentiated by PyTorch.

    Args:
        model: The module.
        loss: The loss.
        flat: Its parameters.
        forward: How the module is called.
    """

    def __init__(self, model: nn.Module, loss: Loss, flat: FlatParameters, forward: Forward = call_model) -> None:
        self.model, self.loss, self.flat, self.forward = model, loss, flat, forward
        self.gradient = FlatGradient(flat)
        called = [model, *reached_modules(loss), *reached_modules(forward)]
        self.replay = Replay(called, flat.buffer.device)
        self._side_effects = SideEffects(model, flat)
        self._precision: torch.dtype | None = None
        self._custom_functions, self._is_cheap = CustomFunctions(flat.buffer.device), False

    def differentiate(self, inputs: Any, targets: Any) -> Tensor:
        """Set g and return L(θ; B)."""
        _forget_casts(self.flat.buffer.device)
        with torch.enable_grad(), reentrant_checkpointing_refused():
            outputs = self._outputs(inputs)
            value = self.loss(outputs, targets)
            gradients = torch.autograd.grad(value, self.flat.parameters, allow_unused=True)
        _check_some(gradients)
        self.gradient.assign(gradients)
        return value.detach()

    def linearize(
        self, inputs: Any, targets: Any, curvature: Curvature, observer: Observer | None = None
    ) -> LocalModel:
        """Set g and return a model of the loss."""
        with self.replay.recorded():
            local, record = self.pass_forward(inputs, targets, curvature, observer)
        self.gradient.assign(local.gradients)
        # Not before: passes that raise, for memory say, must leave nothing behind.
        if observer is not None:
            assert record is not None
            observer.begin(record.cases)
            with torch.no_grad():
                observer.observe(record)
            observer.end(None)
        return _DifferentiatedModel(self, local, inputs, targets)

    def pass_forward(
        self, inputs: Any, targets: Any, curvature: Curvature, observer: Observer | None = None
    ) -> tuple[Linearization | HessianLinearization, RecordedLayers | None]:
        """Run the forward and backward passes; return the loss's model, and the layers that ``observer`` wants."""
        _forget_casts(self.flat.buffer.device)
        marks = self._side_effects.marks(inputs, targets)
        with torch.enable_grad(), ExitStack() as stack:
            record = None
            if observer is not None:
                wanted = observer.layers, observer.parameters
                record = stack.enter_context(recorded_layers(self.model, *wanted, targets))
            self._is_cheap = curvature == "fisher"
            outputs = self._call(inputs, self._is_cheap)
            if record is not None:
                # What a forward of one's own takes may hold no rows that can be seen.
                record.close(outputs, count_rows(inputs if has_rows(inputs) else outputs))
            if not outputs.requires_grad:
                raise ValueError(_NO_PARAMETER)
            if self._custom_functions.watch(outputs, (self.model.training, curvature)) and curvature == "hessian":
                refuse_wrong_derivatives(outputs)
            parts = outputs, self.loss, self.flat.parameters, targets, self._precision
            local = Linearization(*parts) if curvature == "fisher" else HessianLinearization(*parts)
        self._side_effects.check(marks, inputs, targets, lambda: self._forward_again(inputs))
        _check_some(local.gradients)
        self._custom_functions.settle()
        return local, record

    def value(self, inputs: Any, targets: Any) -> Tensor:
        """Return L(θ; B), by the same operations as the passes above."""
        _forget_casts(self.flat.buffer.device)
        with _without_gradients():
            # On CUDA, batch normalization is another kernel there; on a CPU it is the same one.
            value = self.loss(self._call(inputs, self._is_cheap and self.flat.buffer.is_cuda), targets)
        _forget_casts(self.flat.buffer.device)
        return value

    def _forward_again(self, inputs: Any) -> None:
        """Run the forward pass of the pass that is under way once more."""
        with self.replay.replayed(), _without_gradients():
            self._call(inputs, False)
        _forget_casts(self.flat.buffer.device)

    def _call(self, inputs: Any, cheaply: bool) -> Tensor:
        tangents = cheap_tangents(self.model) if cheaply else nullcontext()
        with plain_attention(self.model), reentrant_checkpointing_refused(), tangents:
            return self._outputs(inputs)

    def _outputs(self, inputs: Any) -> Tensor:
        outputs = self.forward(self.model, inputs)
        self._precision = low_precision_of(outputs)
        if not self.flat.is_bound():
            # The pass has given parameters other storage, as constraints on weights do: that is where they are now.
            self.flat.adopt()
        return checked_outputs(outputs, self.flat.buffer.dtype)


def _forget_casts(device: torch.device) -> None:
    """Drop autocast's copies of the parameters, which have moved since they were made.

    Raises:
        RuntimeError: Autocast computes in float16, which needs the loss to be scaled.
    """
    if torch.is_autocast_enabled(device.type):
        if torch.get_autocast_dtype(device.type) == torch.float16:
            raise RuntimeError(FLOAT16_REFUSED)
        torch.clear_autocast_cache()


class _DifferentiatedModel:
    def __init__(
        self,
        network: DifferentiatedNetwork,
        linearization: Linearization | HessianLinearization,
        inputs: Any,
        targets: Any,
    ) -> None:
        self._network, self._linearization = network, linearization
        self._inputs, self._targets = inputs, targets
        self.loss = linearization.loss
        self.unresolved = None if linearization.unresolved is None else linearization.unresolved.sum()

    def curvature(self, directions: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        with torch.enable_grad():
            return [[form.detach() for form in row] for row in self._linearization.curvature(directions)]

    def loss_after(self, weights: Sequence[Tensor]) -> Tensor:
        with self._network.replay.replayed():
            return self._network.value(self._inputs, self._targets)
