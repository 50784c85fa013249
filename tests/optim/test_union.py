"""Minibatches in pieces, or with parts in several processes: the steps of the whole on one."""

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from adamqlr import KFAC, QLR, AdamQLR

from . import union_cases
from .union_cases import CASES, Case, batches, model_of, packed, packed_parts, steps

PROGRAM = Path(union_cases.__file__)


@pytest.fixture(scope="module", params=[2, 3])
def processes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of several processes found, in all cases."""
    folder = tmp_path_factory.mktemp("processes")
    commands = [
        [sys.executable, str(PROGRAM), str(rank), str(request.param), str(folder)] for rank in range(request.param)
    ]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    errors = [process.communicate(timeout=300)[1] for process in running]
    assert not any(process.returncode for process in running), errors
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(request.param)]


def assert_same_steps(found: dict[str, Any], wanted: dict[str, Any], rtol: float = 1e-9) -> None:
    for one, other in zip(found["infos"], wanted["infos"], strict=True):
        for name in other:
            torch.testing.assert_close(one[name], other[name], rtol=rtol, atol=1e-12, equal_nan=True, msg=name)
    torch.testing.assert_close(found["parameters"], wanted["parameters"], rtol=rtol, atol=1e-12)


def whole(case: Case, count: int) -> dict[str, Any]:
    """Return the steps of one process that has the whole minibatches, in one piece."""
    options = {name: value for name, value in case.options.items() if name != "microbatch"}
    optimizer = case.make(model_of(case), case.loss, **options)
    parts = batches(case, count)
    joined = [tuple(torch.cat(tensors) for tensors in zip(*each, strict=True)) for each in parts]
    return steps(case, optimizer, joined)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.is_reproducible])
def test_processes_take_the_step_of_the_union_batch(name: str, processes: list[dict[str, Any]]) -> None:
    assert_same_steps(processes[0][name], whole(CASES[name], len(processes)))


@pytest.mark.parametrize("name", CASES)
def test_replicas_are_equal_to_the_bit(name: str, processes: list[dict[str, Any]]) -> None:
    first, *others = [process[name] for process in processes]
    for other in others:
        torch.testing.assert_close(other["parameters"], first["parameters"], rtol=0, atol=0)
        for one, info in zip(other["infos"], first["infos"], strict=True):
            torch.testing.assert_close(one, info, rtol=0, atol=0, equal_nan=True)


def test_processes_must_say_whether_they_train_together(processes: list[dict[str, Any]]) -> None:
    for process in processes:
        assert process["error"].startswith(f"torch.distributed runs {len(processes)} processes: give the optimizer the")
        assert "process_group='local'" in process["error"]
    first, second = (process["local"]["parameters"] for process in processes[:2])
    assert not torch.equal(first[0], second[0])


def test_replicas_begin_with_the_first_ones_frozen_parameters_and_buffers(processes: list[dict[str, Any]]) -> None:
    for process in processes[1:]:
        torch.testing.assert_close(process["begun"], processes[0]["begun"], rtol=0, atol=0)


def assert_nothing_moves(found: dict[str, Any]) -> None:
    before = [parameter.detach() for parameter in model_of(CASES["AdamQLR"]).parameters()]
    torch.testing.assert_close(found["parameters"], before, rtol=0, atol=0)


def test_a_minibatch_of_which_no_target_counts_moves_nothing(processes: list[dict[str, Any]]) -> None:
    assert_nothing_moves(processes[0]["nothing counts"])
    case = CASES["AdamQLR"]
    optimizer = AdamQLR(model_of(case), "cross_entropy", microbatch=3)
    assert_nothing_moves(steps(case, optimizer, [(torch.randn(8, 5).double(), torch.full((8,), -100))]))


def test_messages_that_are_not_the_steps_own_are_refused(processes: list[dict[str, Any]]) -> None:
    for process in processes:
        found = process["messages"]
        assert "give every process as many minibatches and step outside it" in found["join"]
        assert "has a communication hook or mixed_precision, which the step's messages would go around" in found["hook"]
        assert bool(found["steps"]["infos"][0]["taken"])


def test_processes_that_show_a_layer_unlike_numbers_of_positions_are_all_refused(
    processes: list[dict[str, Any]],
) -> None:
    for rank, process in enumerate(processes):
        assert process["positions"].startswith(f"3 of rank {rank}: processes show Linear(in_features=5, out_features=4")
        assert "pad their parts of a minibatch to one length, or use AdamQLR" in process["positions"]


def test_packed_sequences_count_by_their_number(processes: list[dict[str, Any]]) -> None:
    assert_same_steps(processes[0]["packed"], packed(packed_parts(len(processes))))


def test_packed_sequences_cannot_be_cut() -> None:
    with pytest.raises(ValueError, match=r"cannot cut the PackedSequence in the inputs: give padded rows.*forward="):
        packed(packed_parts(2), microbatch=2)
    packed(packed_parts(2), microbatch=5)


def test_sharded_parameters_are_refused(processes: list[dict[str, Any]]) -> None:
    for process in processes:
        assert "is sharded (FSDP or tensor parallel): use DistributedDataParallel instead" in process["sharded"]


PIECES: dict[str, Case] = {name: case for name, case in CASES.items() if "microbatch" in case.options}


@pytest.mark.parametrize("rows", [1, 5, 100])
@pytest.mark.parametrize("name", PIECES)
def test_pieces_take_the_step_of_the_whole(name: str, rows: int) -> None:
    case = PIECES[name]
    optimizer = case.make(model_of(case), case.loss, **{**case.options, "microbatch": rows})
    assert_same_steps(steps(case, optimizer, [parts[0] for parts in batches(case, 1)]), whole(case, 1))


def test_a_piece_of_which_no_target_counts_does_no_harm() -> None:
    torch.manual_seed(0)
    inputs, targets = torch.randn(6, 5).double(), torch.tensor([0, 1, 2, -100, -100, -100])
    found = []
    for rows in (3, 6):
        model = model_of(CASES["AdamQLR"])
        found.append(AdamQLR(model, "cross_entropy", microbatch=rows).step(inputs, targets))
    torch.testing.assert_close(tuple(found[0]), tuple(found[1]), rtol=1e-10, atol=1e-14)


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 7), nn.Linear(7, 3)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        hidden = nn.functional.dropout(self.first(first + second), 0.5, self.training)
        return self.second(hidden)


@pytest.mark.parametrize("make", [AdamQLR, KFAC, lambda model, loss, **o: QLR(model, loss, "gradient", **o)])
def test_every_piece_keeps_its_random_numbers_in_all_passes(make: Any) -> None:
    """With a step of length 0, the loss before and after is the same but for other random numbers."""
    torch.manual_seed(0)
    model = Dropping().double()
    optimizer = make(model, "cross_entropy", microbatch=2)
    optimizer.param_groups[0]["lr"] = 0.0
    pairs = {"first": torch.randn(7, 5).double(), "second": torch.randn(7, 5).double()}
    info = optimizer.step(pairs, torch.randint(3, (7,)))
    assert float(info.true_change) == 0
    assert float(info.curvature) > 0


def test_a_piece_that_draws_no_random_numbers_leaves_the_others_theirs() -> None:
    class Sometimes(Dropping):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            self.train(len(first) == 2)
            return super().forward(first, second)

    torch.manual_seed(0)
    optimizer = AdamQLR(Sometimes().double(), "cross_entropy", microbatch=2)
    optimizer.param_groups[0]["lr"] = 0.0
    pair = torch.randn(7, 5).double(), torch.randn(7, 5).double()
    assert float(optimizer.step(pair, torch.randint(3, (7,))).true_change) == 0


def test_pieces_of_named_tuples_are_named_tuples() -> None:
    class Pair(NamedTuple):
        first: Tensor
        second: Tensor

    def forward(model: nn.Module, pair: Pair) -> Tensor:
        outputs: Tensor = model(pair.first, pair.second)
        return outputs

    found, pair, targets = [], Pair(torch.randn(7, 5), torch.randn(7, 5)), torch.randint(3, (7,))
    for rows in (None, 2):
        torch.manual_seed(0)
        optimizer = AdamQLR(Dropping().eval(), "cross_entropy", forward=forward, microbatch=rows)
        found.append(float(optimizer.step(pair, targets).lr))
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_pieces_of_targets_that_are_no_tensor_count_by_their_rows() -> None:
    torch.manual_seed(0)
    inputs, targets = (
        torch.randn(7, 5).double(),
        {"mean": torch.randn(7, 3).double(), "scale": torch.rand(7, 3).double()},
    )
    found = []
    for rows in (3, 7):
        optimizer = AdamQLR(model_of(CASES["AdamQLR"]), scaled_error, microbatch=rows)
        found.append(optimizer.step(inputs, targets))
    torch.testing.assert_close(tuple(found[0]), tuple(found[1]), rtol=1e-10, atol=1e-14)


def scaled_error(outputs: Tensor, targets: dict[str, Tensor]) -> Tensor:
    return ((outputs - targets["mean"]).square() * targets["scale"]).mean()


@pytest.mark.parametrize("microbatch", [0, 2.5, True])
def test_pieces_are_whole_numbers_of_rows(microbatch: Any) -> None:
    with pytest.raises(ValueError, match=f"microbatch must be a whole number, 1 or more, or None, got {microbatch}"):
        AdamQLR(nn.Linear(2, 1), "half_mse", microbatch=microbatch)


class MaskedSquares:
    """Squared errors of the targets that count, weighed by their number."""

    def __call__(self, outputs: Tensor, targets: Any) -> Tensor:
        wanted, mask = targets
        return ((outputs - wanted).square() * mask).sum() / mask.sum()

    def hessian_vector_product(self, outputs: Tensor, targets: Any, vector: Tensor) -> Tensor:
        return 2 * targets[1] * vector / targets[1].sum()

    def weight(self, targets: Any) -> Tensor:
        return targets[1].sum()


def test_a_piece_that_ones_own_loss_leaves_out_does_no_harm() -> None:
    """Its loss is 0/0, and so is its gradient."""
    torch.manual_seed(0)
    inputs, targets = torch.randn(6, 4), torch.randn(6, 1)
    mask = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])[:, None]
    found = []
    for rows in (None, 3):
        torch.manual_seed(0)
        model = nn.Linear(4, 1)
        info = AdamQLR(model, MaskedSquares(), microbatch=rows).step(inputs, (targets, mask))
        found.append([info.loss, info.lr, model.weight.detach()])
    torch.testing.assert_close(found[0], found[1])


class Doubling(nn.Module):
    """Divides by a buffer that every pass doubles first."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, inputs: Tensor) -> Tensor:
        self.scale.mul_(2)
        return inputs / self.scale


def test_each_piece_is_differentiated_with_the_buffers_of_its_own_pass() -> None:
    """Two pieces, w/2 and w/4: g = (1/4 + 1/16) / 2, and as the curvature is the same number, α = 1 / g."""
    model: Any = nn.Sequential(nn.Linear(1, 1, bias=False), Doubling())
    nn.init.ones_(model[0].weight)
    optimizer = QLR(model, "half_mse", "gradient", damping=0.0, adapt_damping=False, microbatch=1)
    info = optimizer.step(torch.ones(2, 1), torch.zeros(2, 1))
    slope = (1 / 4 + 1 / 16) / 2
    torch.testing.assert_close(info.lr, torch.tensor(1 / slope))
    torch.testing.assert_close(info.curvature, torch.tensor(slope**3))
