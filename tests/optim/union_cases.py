"""Optimizers on minibatches of which several processes have a part: the cases, and the program of one process."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from adamqlr import KFAC, QLR, AdamQLR

STEPS = 6


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.LayerNorm([3, 3, 3]), nn.Flatten(), nn.Linear(27, 3))


def normalized() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 3))


def embedded() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.PReLU(), nn.Linear(6, 3))


def vectors(rows: int) -> Tensor:
    return torch.randn(rows, 5, dtype=torch.float64)


def images(rows: int) -> Tensor:
    return torch.randn(rows, 1, 5, 5, dtype=torch.float64)


def nadam(model: nn.Module, loss: Any, **options: Any) -> QLR:
    module = model.module if isinstance(model, DistributedDataParallel) else model
    return QLR(model, loss, torch.optim.NAdam(module.parameters()), **options)


@dataclass
class Case:
    """An optimizer on a task.

    Attributes:
        make: Makes the optimizer.
        build: Makes the network.
        inputs: Draws inputs.
        loss: The loss.
        options: Options of the optimizer.
        ignored: The share of targets that do not count.
        unequal: Whether processes have parts of different sizes.
        wrapped: Whether the model is wrapped, rather than the process group named.
        is_reproducible: Whether one process with the whole minibatch takes the same steps.
    """

    make: Callable[..., Any]
    build: Callable[[], nn.Module] = perceptron
    inputs: Callable[[int], Tensor] = vectors
    loss: Any = "cross_entropy"
    options: dict[str, Any] = field(default_factory=dict)
    ignored: float = 0.0
    unequal: bool = True
    wrapped: bool = True
    is_reproducible: bool = True


CASES = {
    "AdamQLR": Case(AdamQLR),
    "AdamQLR, convolutions": Case(AdamQLR, convolutional, images, options={"weight_decay": 1e-3}),
    "AdamQLR, Hessian, group": Case(AdamQLR, options={"curvature": "hessian", "damping": 0.5}, wrapped=False),
    "AdamQLR, targets that do not count": Case(AdamQLR, ignored=0.4),
    "AdamQLR, pieces": Case(AdamQLR, ignored=0.4, options={"microbatch": 3}),
    "AdamQLR, sum": Case(AdamQLR, loss=nn.CrossEntropyLoss(reduction="sum"), options={"microbatch": 4}),
    "QLR over NAdam": Case(nadam, options={"momentum": None}),
    "QLR over the gradient, pieces": Case(QLR, options={"direction": "gradient", "momentum": 0.5, "microbatch": 2}),
    "K-FAC": Case(KFAC, options={"fisher": "exact"}),
    "K-FAC, convolutions": Case(KFAC, convolutional, images, options={"fisher": "exact", "inverse_period": 2}),
    "K-FAC, targets that do not count, pieces": Case(KFAC, ignored=0.4, options={"fisher": "exact", "microbatch": 3}),
    # Statistics of each process's own rows, and its own samples.
    "AdamQLR, batch normalization": Case(AdamQLR, normalized, is_reproducible=False),
    "K-FAC, sampled, elsewhere": Case(KFAC, embedded, is_reproducible=False),
}


def batches(case: Case, processes: int) -> list[list[tuple[Tensor, Tensor]]]:
    """Return, for every step, each process's part."""
    torch.manual_seed(1)
    found = []
    for _ in range(STEPS):
        parts = []
        for rank in range(processes):
            rows = 7 + 2 * rank if case.unequal else 8
            targets = torch.randint(3, (rows,))
            ignored = torch.rand(rows) < case.ignored
            parts.append((case.inputs(rows), targets.masked_fill(ignored, -100)))
        found.append(parts)
    return found


def steps(case: Case, optimizer: Any, parts: list[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Take a step on each; return what they found, and the parameters in the end."""
    infos = [optimizer.step(*part)._asdict() for part in parts]
    parameters = [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]
    return {"infos": infos, "parameters": parameters}


def model_of(case: Case) -> nn.Module:
    """Return the network, initialized alike everywhere."""
    torch.manual_seed(0)
    return case.build().double()


def begun(rank: int) -> dict[str, Tensor]:
    """Return what a model with a frozen layer, begun otherwise by each process, is once it has an optimizer."""
    torch.manual_seed(rank)
    model = normalized()
    model.get_parameter("0.weight").requires_grad_(False)
    model.get_buffer("1.running_mean").fill_(rank)
    AdamQLR(model, "cross_entropy", process_group=dist.group.WORLD)
    return model.state_dict()


def nothing_counts(rank: int) -> dict[str, Any]:
    """Return the step on a minibatch of which no target counts."""
    case = CASES["AdamQLR"]
    optimizer = AdamQLR(model_of(case), "cross_entropy", process_group=dist.group.WORLD)
    return steps(case, optimizer, [(vectors(4), torch.full((4,), -100))])


class LastState(nn.Module):
    """What a recurrent network says of each sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.output = nn.RNN(5, 4), nn.Linear(4, 3)

    def forward(self, sequences: PackedSequence) -> Tensor:
        outputs: Tensor = self.output(self.recurrent(sequences)[1][0])
        return outputs


def log_cosh(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss that says nothing of how many rows it is a mean of."""
    return (outputs - targets).cosh().log().mean()


def packed_parts(processes: int) -> list[tuple[list[Tensor], Tensor]]:
    """Return each process's sequences, more of them and shorter ones in later processes, and their targets."""
    torch.manual_seed(2)
    numbers = [(2 + rank, 9 // (1 + rank)) for rank in range(processes)]
    return [([vectors(length) for _ in range(count)], vectors(count)[:, :3]) for count, length in numbers]


def packed(parts: list[tuple[list[Tensor], Tensor]], **options: Any) -> dict[str, Any]:
    """Return the step on the sequences of all parts."""
    sequences = [sequence for some, _ in parts for sequence in some]
    batch: Any = pack_sequence(sequences, enforce_sorted=False), torch.cat([targets for _, targets in parts])
    case = Case(AdamQLR, LastState)
    return steps(case, AdamQLR(model_of(case), log_cosh, **options), [batch])


def refused_messages(rank: int) -> dict[str, Any]:
    """Return what is said of messages that are not the step's own, and the steps that are taken without them."""
    case, (batch,) = CASES["AdamQLR"], batches(CASES["AdamQLR"], 3)[0][rank : rank + 1]
    model = DistributedDataParallel(model_of(case))
    optimizer = AdamQLR(model, "cross_entropy")
    found: dict[str, Any] = {}
    try:
        with model.join():
            optimizer.step(*batch)
    except ValueError as error:
        found["join"] = str(error)
    with model.join(enable=False):
        found["steps"] = steps(case, optimizer, [batch])
    model.register_comm_hook(None, allreduce_hook)
    try:
        optimizer.step(*batch)
    except ValueError as error:
        found["hook"] = str(error)
    return found


class Summed(nn.Module):
    """Adds up what it makes of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.last(torch.tanh(self.first(inputs)).sum(dim=1))
        return outputs


def unlike_positions(rank: int) -> str:
    """Return what is said where this process shows a layer as many positions as others, and then more."""
    torch.manual_seed(0)
    optimizer = KFAC(DistributedDataParallel(Summed()), "half_mse")
    for positions in (3, 7, 3 + rank):
        try:
            optimizer.step(torch.randn(4 + rank, positions, 5), torch.randn(4 + rank, 2))
        except ValueError as error:
            return f"{positions - rank} of rank {rank}: {error}"
    return ""


def main(rank: int, processes: int, folder: Path) -> None:
    """Be one of the processes; leave what it found in a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=processes)
    found: dict[str, Any] = {}
    for name, case in CASES.items():
        model = model_of(case)
        if case.wrapped:
            optimizer = case.make(DistributedDataParallel(model), case.loss, **case.options)
        else:
            # Replicas that start apart are brought together.
            model.get_parameter("0.bias").data += rank
            optimizer = case.make(model, case.loss, process_group=dist.group.WORLD, **case.options)
        torch.manual_seed(10 + rank)
        drawn = batches(case, processes)
        torch.manual_seed(10 + rank)
        found[name] = steps(case, optimizer, [parts[rank] for parts in drawn])
    try:
        AdamQLR(model_of(CASES["AdamQLR"]), "cross_entropy").step(*drawn[0][rank])
    except ValueError as error:
        found["error"] = str(error)
    alone = AdamQLR(model_of(CASES["AdamQLR"]), "cross_entropy", process_group="local")
    found["local"] = steps(CASES["AdamQLR"], alone, [drawn[0][rank]])
    try:
        AdamQLR(fully_shard(model_of(CASES["AdamQLR"]), mesh=init_device_mesh("cpu", (processes,))), "cross_entropy")
    except ValueError as error:
        found["sharded"] = str(error)
    found["begun"] = begun(rank)
    found["nothing counts"] = nothing_counts(rank)
    found["packed"] = packed(packed_parts(processes)[rank : rank + 1], process_group=dist.group.WORLD)
    found["positions"] = unlike_positions(rank)
    found["messages"] = refused_messages(rank)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
