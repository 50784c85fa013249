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
from adamqlr.optim.passes.custom_functions import CustomFunctions, refuse_wrong_derivatives
from adamqlr.optim.passes.layer_record import RecordedLayers, recorded_layers
from adamqlr.optim.passes.linearizations import ForwardPass, HessianLinearization, Linearization
from adamqlr.optim.passes.losses import Loss
from adamqlr.optim.passes.network import Curvature, Forward, LocalModel, Observer, call_model, count_rows, has_rows
from adamqlr.optim.passes.outputs import FLOAT16_REFUSED, checked_outputs, low_precision_of
from adamqlr.optim.passes.reached_modules import reached_modules
from adamqlr.optim.passes.replay import Replay
from adamqlr.optim.passes.side_effects import SideEffects
from adamqlr.optim.passes.tangents import cheap_tangents, plain_attention
from adamqlr.optim.torch_private import reentrant_checkpointing_refused

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


def _check_some(gradients: Sequence[Tensor | None]) -> None:
    if all(gradient is None for gradient in gradients):
        raise ValueError(_NO_PARAMETER)


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
        with self.replay.recorded(is_observed=observer is not None):
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
            passed = ForwardPass(outputs, self.loss, self.flat.parameters, targets, self._precision)
            local = Linearization(passed) if curvature == "fisher" else HessianLinearization(passed)
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
