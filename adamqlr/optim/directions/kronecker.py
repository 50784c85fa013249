"""K-FAC's direction: the gradient preconditioned by Kronecker factors of the Fisher (Martens & Grosse 2015)."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from adamqlr.optim.constants import constant
from adamqlr.optim.directions.diagonal_blocks import DiagonalBlock, NormalizationBlock
from adamqlr.optim.directions.kronecker_blocks import KroneckerBlock
from adamqlr.optim.directions.kronecker_factors import KroneckerInverses
from adamqlr.optim.directions.layer_blocks import curvature_blocks
from adamqlr.optim.directions.positions import PositionsOfProcesses
from adamqlr.optim.flat import FlatGradient, FlatParameters
from adamqlr.optim.options import require
from adamqlr.optim.passes.losses import Loss
from adamqlr.optim.passes.network import LayerRecord, UnionBatch
from adamqlr.optim.passes.output_fisher import MembersFisher, output_fisher
from adamqlr.optim.passes.perceptron import members_of
from adamqlr.optim.state import State
from adamqlr.optim.torch_private import copy_all


class KroneckerDirection:
    """d = G⁻¹ V A⁻¹ for each layer, with V its gradient and A, G moving averages of second moments.

    In the form of kfac-jax 0.0.3, without burn-in.

    Args:
        model: The module whose layers are looked at.
        loss: Gives the output Fisher, from which δ is drawn.
        fisher: ``"sampled"``, one target a case from the model's own predictive distribution, drawn with PyTorch's
            global generator (for networks side by side, for all of them at once), or ``"exact"``, its expectation where
            no batch normalization couples the cases: a backward pass for each output.
        ema_decay: Decay of the moving averages; 1 for plain means of all steps.
        inverse_period: Steps between inversions.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        fisher: Literal["sampled", "exact"] = "sampled",
        ema_decay: float = 0.95,
        inverse_period: int = 1,
    ) -> None:
        self._model = model
        # One for all layouts, which may change in one process alone: all are to look at the same steps.
        self._positions = PositionsOfProcesses()
        self._output_fisher = MembersFisher(loss) if members_of(model) else output_fisher(loss)
        self.defaults: Mapping[str, Any] = {
            "fisher": fisher,
            "ema_decay": ema_decay,
            "inverse_period": inverse_period,
        }
        self.check_options(self.defaults)

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse options that are out of their range."""
        fisher, ema_decay, inverse_period = (options[name] for name in ("fisher", "ema_decay", "inverse_period"))
        require(fisher in ("sampled", "exact"), "fisher", "'sampled' or 'exact'", fisher)
        require(0 <= ema_decay <= 1, "ema_decay", "in [0, 1]", ema_decay)
        whole = isinstance(inverse_period, int) and inverse_period >= 1
        require(whole, "inverse_period", "a whole number, 1 or more", inverse_period)

    def bind(self, flat: FlatParameters, state: State) -> None:
        """Make the blocks."""
        self._group = state.group
        self._period: int = self._group["inverse_period"]
        self._blocks, self._diagonal = curvature_blocks(self._model, flat, state, keep_inverses=self._period > 1)
        # Networks side by side show their layers without hooks.
        self.layers: Sequence[nn.Module] = [] if flat.members else [block.module for block in self._blocks]
        self.parameters: Sequence[Tensor] = self._diagonal.parameters if self._diagonal else []
        self._weight = state.number("weight", 0.0)
        self._group.setdefault("step", 0)
        # Averages of layers that were frozen for a while stand for the same means at the common weight.
        for place, weight in state.returned("weight").items():
            for average in self._averages_of(flat.parameters[place]):
                average.mul_(self._weight / weight)
        self._factored = [block for block in self._blocks if isinstance(block, KroneckerBlock)]
        self._parts = [part for block in self._factored for part in block.parts]
        self._inverses = KroneckerInverses([block.inverse for block in self._factored], self._weight)
        self._flat = flat
        # Where the parameters of the factored blocks stand, and of each other block.
        places = {id(parameter): index for index, parameter in enumerate(flat.parameters)}
        self._places = [places[id(parameter)] for block in self._factored for parameter in block.parameters]
        self._diagonals = [
            (block, [places[id(parameter)] for parameter in block.parameters])
            for block in [*self._blocks, self._diagonal]
            if isinstance(block, (NormalizationBlock, DiagonalBlock))
        ]
        self._out: Tensor | None = None

    def _averages_of(self, parameter: nn.Parameter) -> Sequence[Tensor]:
        """Return what is averaged for a layer, by its first parameter, or for a parameter in no layer."""
        diagonal = zip(self._diagonal.parameters, self._diagonal.averages, strict=True) if self._diagonal else []
        return [
            *[average for block in self._blocks if block.parameters[0] is parameter for average in block.averages],
            *[average for other, average in diagonal if other is parameter],
        ]

    def __getstate__(self) -> dict[str, Any]:
        """Return what copying keeps: the averages are the optimizer's."""
        kept = "_model", "_output_fisher", "_positions", "defaults"
        return {name: self.__dict__[name] for name in kept}

    @property
    def capturable(self) -> bool:
        """Whether each proposal inverts the factors."""
        return self._period == 1

    def undo(self) -> Callable[[], None] | None:
        """Return what takes back the count of steps, where they are counted."""
        return self._uncount if self._period > 1 else None

    def _uncount(self) -> None:
        self._group["step"] -= 1

    def begin(self, cases: int) -> None:
        """Move the weight on, weight ← decay · weight + 1, as the first piece will the averages."""
        self._cases, self._decay = cases, self._group["ema_decay"]
        one = constant(1.0, self._weight.dtype, self._weight.device)
        torch.add(one, self._weight, alpha=self._decay, out=self._weight)
        for block in self._factored:
            block.positions = None
        if self._diagonal is not None:
            self._diagonal.begin()

    def observe(self, record: LayerRecord) -> None:
        """Add a minibatch's second moments to the averages, or those of a piece of it."""
        cases, decay = self._cases, self._decay
        features = [
            block.add_inputs(inputs, cases, decay) for block, inputs in zip(self._blocks, record.inputs, strict=True)
        ]
        outputs = record.outputs
        if outputs.dtype != self._flat.buffer.dtype:
            outputs = outputs.to(self._flat.buffer.dtype)
        if self._group["fisher"] == "exact":
            self._check_exact()
            cotangents = self._output_fisher.exact_cotangents(outputs, record.targets)
        else:
            cotangents = iter([self._output_fisher.sample_cotangent(outputs, record.targets)])
        # Outputs may be in rows of positions, or of some of them, where δ is to be that of cases.
        rows = record.cases if self._flat.members else len(outputs)
        for cotangent in cotangents:
            if rows != record.cases:
                cotangent = cotangent * math.sqrt(record.cases / rows)
            deltas, gradients = record.back_propagate(cotangent)
            for block, known, delta in zip(self._blocks, features, deltas, strict=True):
                block.add_cotangents(known, delta, record.cases, cases, decay)
            decay = 1.0
            if self._diagonal is not None:
                self._diagonal.add_gradients(gradients)
        self._decay = decay

    def _check_exact(self) -> None:
        if self._diagonal is not None:
            first = self._diagonal.parameters[0]
            name = next(n for n, p in zip(self._flat.names, self._flat.parameters, strict=True) if p is first)
            raise ValueError(
                f"fisher='exact' is not known for {name}, which is in no layer that K-FAC knows: use fisher='sampled'"
            )

    def end(self, union: UnionBatch | None) -> None:
        """Average over the processes that have parts of the minibatch, each by its share of the cases."""
        cases: Tensor | float = self._cases
        averages = [average for block in self._blocks for average in block.averages]
        if union is not None:
            cases = self._cases / union.share
            for average in averages:
                average.mul_(union.share)
            message = [*averages, *(self._diagonal.sums if self._diagonal else [])]
            positions = self._positions.numbers(self._factored, self._weight)
            union.add_up([*message, positions])
            self._positions.check(self._factored, positions)
        if self._diagonal is not None:
            self._diagonal.end(cases, self._group["ema_decay"])

    def propose(self, gradient: FlatGradient, damping: Tensor, out: Tensor) -> None:
        """Write the damped inverse of the factors times the gradient into ``out``."""
        if out is not self._out:
            # It is the same vector at every step, and making its views takes as long as inverting a small layer.
            views = self._flat.views(out)
            places = [*self._places, *[place for _, others in self._diagonals for place in others]]
            self._out, self._views = out, [views[place] for place in places]
        if self._group["inverse_period"] != self._period:
            raise ValueError("inverse_period decides what is kept: give it when the optimizer is made")
        if self._factored and self._group["step"] % self._period == 0:
            self._inverses.renew(self._weight, damping)
        # A count on the host would outlive a step that is taken back.
        if self._period > 1:
            self._group["step"] += 1
        gradients, found = gradient.views, list(self._parts)
        if self._factored:
            copy_all(self._parts, [gradients[place] for place in self._places])
            for factored in self._factored:
                factored.inverse.apply()
        for block, places in self._diagonals:
            found += block.precondition([gradients[place] for place in places], self._weight, damping)
        copy_all(self._views, found)
