"""A minibatch in pieces, or with parts in several processes, to the numbers of the whole on one.

A loss that is a mean is the average of its pieces' by the number of targets that count; one that is a sum, their sum.
So are its gradient and its curvature. Each piece runs its passes on its own, so that memory holds one piece at a time.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from adamqlr.optim.passes.differentiated import DifferentiatedNetwork
from adamqlr.optim.passes.differentiated_loss import DifferentiatedLoss
from adamqlr.optim.passes.layer_record import RecordedLayers
from adamqlr.optim.passes.linearizations import HessianLinearization, Linearization
from adamqlr.optim.passes.losses import Loss
from adamqlr.optim.passes.network import Curvature, LocalModel, Observer, count_rows, split
from adamqlr.optim.passes.replay import Mark


class Processes:
    """The parts of a minibatch that several processes have, as tensors add up over them.

    Attributes:
        share: The share of the cases that are here, a 0-d tensor.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self.share = torch.ones(())

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in one message."""
        if len(tensors) == 1:
            dist.all_reduce(tensors[0], group=self._group)
            return
        together = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(together, group=self._group)
        _copy_parts(together, tensors)

    def align(self, tensors: Sequence[Tensor]) -> None:
        """Replace the tensors by those of the group's first process, in a message for each dtype."""
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            alike = [tensor for tensor in tensors if tensor.dtype == dtype]
            together = torch.cat([tensor.reshape(-1) for tensor in alike])
            dist.broadcast(together, group=self._group, group_src=0)
            _copy_parts(together, alike)


def _copy_parts(together: Tensor, tensors: Sequence[Tensor]) -> None:
    for tensor, part in zip(tensors, together.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view(tensor.shape))


class _Piece:
    """One piece: its rows, its weight, and where its passes start."""

    def __init__(self, inputs: Any, targets: Any) -> None:
        self.inputs, self.targets, self.cases = inputs, targets, count_rows(inputs)
        self.weight: Tensor | float = 1.0
        self.mark: Mark = [], []


class UnionNetwork:
    """A module whose minibatches are one of several pieces.

    Args:
        network: The module, differentiated by PyTorch.
        microbatch: Rows of a piece; None for all that are here.
        processes: Who has the other parts; None for nobody.
        buffers: Whether the module's buffers are those of the first process, as in ``DistributedDataParallel``.
    """

    def __init__(
        self, network: DifferentiatedNetwork, microbatch: int | None, processes: Processes | None, buffers: bool
    ) -> None:
        self._network, self._microbatch, self._processes = network, microbatch, processes
        self._aligned = list(network.model.buffers()) if buffers else []
        self.flat, self.gradient = network.flat, network.gradient

    def differentiate(self, inputs: Any, targets: Any) -> Tensor:
        """Set g and return L(θ; B)."""
        return self.linearize(inputs, targets, "fisher").loss

    def linearize(
        self, inputs: Any, targets: Any, curvature: Curvature, observer: Observer | None = None
    ) -> LocalModel:
        """Set g and return a model of the loss."""
        if self._processes is not None:
            self._processes.align(self._aligned)
        pieces = self._pieces(inputs, targets)
        loss, kept = self.flat.buffer.new_zeros(()), None
        unresolved, is_low = loss.new_zeros(2), False
        gradient, unused = self.gradient.views, set(range(len(self.flat.parameters)))
        self.gradient.buffer.zero_()
        for piece in pieces:
            with self._network.replay.recorded(is_observed=observer is not None):
                local, record = self._network.pass_forward(piece.inputs, piece.targets, curvature, observer)
            piece.mark = self._network.replay.mark()
            loss += _weighted(local.loss, piece.weight)
            if local.unresolved is not None:
                first, second = _weighted(local.unresolved, piece.weight)
                unresolved, is_low = unresolved + torch.stack([first.square(), second]), True
            for index, part in enumerate(local.gradients):
                if part is not None:
                    gradient[index].add_(_weighted(part.detach(), piece.weight))
                    unused.discard(index)
            if observer is not None:
                assert record is not None
                # Not before: a pass that raises, for memory say, must leave nothing behind.
                if piece is pieces[0]:
                    observer.begin(sum(piece.cases for piece in pieces))
                with torch.no_grad():
                    observer.observe(_Emphasized(record, self._emphasis(piece, pieces)))
            # The only piece's graph serves the tangent pass as well.
            kept = local if len(pieces) == 1 else None
        if self._processes is None:
            self.gradient.note_unused(sorted(unused))
        else:
            # Other processes may use what this one did not.
            used = self.gradient.buffer.new_ones(len(gradient))
            for index in unused:
                used[index].zero_()
            self._processes.add_up([self.gradient.buffer, loss, used, unresolved])
            self.gradient.note_used_somewhere(used)
        self.gradient.publish()
        if observer is not None:
            observer.end(self._processes)
        # Of processes, one may have computed otherwise.
        is_low = is_low or self._processes is not None
        change = unresolved[0].sqrt() + unresolved[1] if is_low else None
        return _UnionModel(self, loss, change, pieces, curvature, kept)

    def _pieces(self, inputs: Any, targets: Any) -> list[_Piece]:
        """Return the pieces with their weights, which add up to 1 over all processes for a mean."""
        rows = count_rows(inputs)
        size = self._microbatch or rows
        pairs = zip(split(inputs, size, rows, "inputs"), split(targets, size, rows, "targets"), strict=True)
        pieces = [_Piece(one, other) for one, other in pairs]
        weights = [_weight_of(self._network.loss, piece.targets, piece.cases) for piece in pieces]
        # Counts are whole numbers, which single precision does not always hold.
        like = torch.zeros((), dtype=torch.float64, device=self.flat.buffer.device)
        counts = torch.stack([like + (1.0 if weight is None else weight) for weight in weights])
        totals = torch.stack([counts.sum(), like + rows])
        if self._processes is not None:
            self._processes.add_up([totals])
            self._processes.share = (rows / totals[1]).to(self.flat.buffer.dtype)
        # Where no target counts, all losses are zero.
        whole = totals[0].clamp_min(torch.finfo(totals.dtype).tiny)
        for piece, weight, count in zip(pieces, weights, counts, strict=True):
            piece.weight = 1.0 if weight is None else (count / whole).to(self.flat.buffer.dtype)
        self._cases = totals[1]
        return pieces

    def _emphasis(self, piece: _Piece, pieces: Sequence[_Piece]) -> Tensor:
        """Return by how much more the piece counts than its share of the cases says."""
        return (piece.weight * self._cases / piece.cases).to(self.flat.buffer.dtype)

    def curvature_of(
        self, piece: _Piece, curvature: Curvature, directions: Sequence[Sequence[Tensor]]
    ) -> list[list[Tensor]]:
        """Run a piece's passes again, and return vᵢᵀ C vⱼ."""
        with self._network.replay.replayed(piece.mark):
            local, _ = self._network.pass_forward(piece.inputs, piece.targets, curvature)
            # Here its buffers are those that its graph may have kept.
            return local.curvature(directions)

    def value_of(self, piece: _Piece) -> Tensor:
        """Return a piece's loss at the parameters as they are now."""
        with self._network.replay.replayed(piece.mark):
            return self._network.value(piece.inputs, piece.targets)

    def add_up(self, numbers: list[Tensor]) -> None:
        """Replace each number by its sum over the processes."""
        if self._processes is not None:
            self._processes.add_up(numbers)


def _weight_of(loss: Loss, targets: Any, rows: int) -> Tensor | float | None:
    """Return the number by which a piece of a minibatch counts; None where the losses of pieces add up."""
    if isinstance(loss, DifferentiatedLoss):
        return loss.weight_of(targets, rows)
    weight = getattr(loss, "weight", None)
    return weight(targets) if callable(weight) else float(rows)


class _UnionModel:
    def __init__(
        self,
        network: UnionNetwork,
        loss: Tensor,
        unresolved: Tensor | None,
        pieces: Sequence[_Piece],
        curvature: Curvature,
        kept: Linearization | HessianLinearization | None,
    ) -> None:
        self._network, self.loss, self.unresolved, self._pieces = network, loss, unresolved, pieces
        self._curvature: Curvature = curvature
        self._kept = kept

    def curvature(self, directions: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        total = [[self.loss.new_zeros(()) for _ in directions] for _ in directions]
        for piece in self._pieces:
            with torch.enable_grad():
                forms = (
                    self._network.curvature_of(piece, self._curvature, directions)
                    if self._kept is None
                    else self._kept.curvature(directions)
                )
            for row, found in zip(total, forms, strict=True):
                for element, form in zip(row, found, strict=True):
                    element += _weighted(form.detach(), piece.weight)
        self._network.add_up([element for row in total for element in row])
        return total

    def loss_after(self, weights: Sequence[Tensor]) -> Tensor:
        total = self.loss.new_zeros(())
        for piece in self._pieces:
            total += _weighted(self._network.value_of(piece), piece.weight)
        self._network.add_up([total])
        return total


class _Emphasized:
    """A piece's layers, its δ made larger where its targets count more than its share of the cases says."""

    def __init__(self, record: RecordedLayers, emphasis: Tensor) -> None:
        self._record, self._root = record, emphasis.sqrt()
        self.inputs: Sequence[Tensor] = record.inputs
        self.outputs, self.targets, self.cases = record.outputs, record.targets, record.cases

    def back_propagate(self, cotangent: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        return self._record.back_propagate(_weighted(cotangent, self._root))


def _weighted(number: Tensor, weight: Tensor | float) -> Tensor:
    """Return a piece's part of numbers: nothing where none of its targets count, and a mean over them is no number."""
    if isinstance(weight, float):
        return number * weight
    return torch.where(weight > 0, number * weight, 0)
