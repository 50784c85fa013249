"""What a step did to the parameters, of any optimizer: how far they moved, and how sharply the loss bends that way."""

import copy

import torch
from torch import Tensor, nn

from adamqlr.optim.flat import FlatParameters
from adamqlr.optim.passes import network_of
from adamqlr.optim.passes.losses import Loss
from adamqlr.optim.passes.perceptron import members_of


class UpdateProbe:
    """Measures updates u = θ′ − θ on a copy of the network, so that the run itself is left as it is.

    Args:
        model: The network, or networks side by side.
        loss: The loss.
    """

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        self._model, self._copy = model, copy.deepcopy(model)
        named = [(name, p) for name, p in self._copy.named_parameters() if p.requires_grad]
        self._flat = FlatParameters(named, members_of(model))
        self._update = self._flat.zeros()
        device = self._update.device
        self._devices = [device] if device.type == "cuda" else []
        self._network = network_of(self._copy, loss, self._flat)

    @torch.no_grad()
    def remember(self) -> None:
        """Remember θ, and where buffers and random generators stand, before a step."""
        self._flat.gather(list(self._model.parameters()), self._flat.buffer)
        for kept, buffer in zip(self._copy.buffers(), self._model.buffers(), strict=True):
            kept.copy_(buffer)
        self._generator = torch.get_rng_state()
        self._cuda_generators = [torch.cuda.get_rng_state(device) for device in self._devices]

    def measure(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return ‖u‖ and the directional sharpness uᵀ C u / ‖u‖² of the step since, a number for each network.

        C is the Fisher matrix at θ on the step's minibatch, with its dropout masks. Directional sharpness is that of
        Pan & Li ("Toward understanding why Adam converges faster than SGD", 2022) but for C, the Hessian there. It is
        not a number where nothing moved.

        Args:
            inputs: The step's.
            targets: The step's.
        """
        theta, update = self._flat.buffer, self._update
        self._flat.gather(list(self._model.parameters()), update).sub_(theta)
        norm = torch.linalg.vector_norm(update, dim=-1)
        with torch.random.fork_rng(self._devices):
            torch.set_rng_state(self._generator)
            for device, state in zip(self._devices, self._cuda_generators, strict=True):
                torch.cuda.set_rng_state(state, device)
            local = self._network.linearize(inputs, targets, "fisher")
        # Of length one, as squares of small updates would vanish in single precision.
        direction = self._flat.views(update.div_(norm.unsqueeze(-1)))
        return norm, local.curvature([direction])[0][0]
