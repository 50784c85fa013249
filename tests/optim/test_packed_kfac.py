"""K-FAC on several perceptrons side by side, beyond moving them as if alone."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from adamqlr import KFAC, QLR
from adamqlr.optim.passes.losses import CrossEntropy, Loss, SquaredError
from adamqlr.optim.passes.output_fisher import MembersFisher, output_fisher
from adamqlr.optim.passes.perceptron import PerceptronPack
from adamqlr.problems.models import mlp

MEMBERS, ROWS, WIDTHS = 3, 40, [4, 5, 3]


def minibatch(members: int = MEMBERS) -> tuple[Tensor, Tensor]:
    return torch.randn(members, ROWS, 4, dtype=torch.float64), torch.randint(3, (members, ROWS))


def pack_of() -> PerceptronPack:
    return PerceptronPack([mlp(WIDTHS).double() for _ in range(MEMBERS)])


def test_a_pack_of_one_draws_as_a_network_alone() -> None:
    alone = mlp(WIDTHS).double()
    pack = PerceptronPack([alone])
    batches = [minibatch(1) for _ in range(5)]
    found = []
    for model in (pack, alone):
        torch.manual_seed(7)
        optimizer = KFAC(model, "cross_entropy")
        for inputs, targets in batches:
            info = optimizer.step(inputs, targets) if model is pack else optimizer.step(inputs[0], targets[0])
        found.append(info)
    torch.testing.assert_close([value[0] for value in found[0]], list(found[1]), rtol=1e-9, atol=1e-13)


def test_members_draw_targets_of_their_own() -> None:
    alone, (inputs, targets) = mlp(WIDTHS).double(), minibatch(1)
    pack = PerceptronPack([alone] * MEMBERS)
    KFAC(pack, "cross_entropy").step(inputs[0], targets[0])
    KFAC(pack, "cross_entropy").step(inputs[0], targets[0])
    weights = next(iter(pack.parameters()))
    assert not any(torch.equal(weights[0], weights[member]) for member in range(1, MEMBERS))


@pytest.mark.parametrize("loss", [CrossEntropy(), CrossEntropy(ignore_index=1), SquaredError(0.5)])
def test_each_member_has_the_output_fisher_of_its_own_rows(loss: Loss) -> None:
    outputs, targets = torch.randn(MEMBERS, ROWS, 3, dtype=torch.float64), torch.randint(3, (MEMBERS, ROWS))
    # Members in which more or fewer targets count, and one in which none does.
    targets[1, :20] = targets[2] = 1
    # The row whose targets are drawn below counts.
    targets[:2, 0] = 0
    together = list(MembersFisher(loss).exact_cotangents(outputs, targets))
    for member in range(MEMBERS):
        alone = list(output_fisher(loss).exact_cotangents(outputs[member], targets[member]))
        torch.testing.assert_close([columns[member] for columns in together], alone)

    many = 5_000
    drawn = [MembersFisher(loss).sample_cotangent(outputs, targets)[:, 0] for _ in range(many)]
    samples = torch.stack(drawn, dim=1)
    expected = sum(columns[:, 0, :, None] * columns[:, 0, None, :] for columns in together)
    torch.testing.assert_close(samples.mT @ samples / many, expected, rtol=0, atol=0.03)


@pytest.mark.parametrize("options", [{"inverse_period": 3}, {"ema_decay": 1.0}])
def test_members_move_as_if_alone_with_other_options(options: dict[str, Any]) -> None:
    alone = [mlp(WIDTHS).double() for _ in range(MEMBERS)]
    pack, dampings = PerceptronPack(alone), (0.1, 1.0, 10.0)
    options = {"fisher": "exact", **options}
    separate = [
        KFAC(model, "cross_entropy", damping=one, **options) for model, one in zip(alone, dampings, strict=True)
    ]
    packed = KFAC(pack, "cross_entropy", damping=torch.tensor(dampings, dtype=torch.float64), **options)
    for step in range(10):
        if step == 5:
            state = copy.deepcopy(packed.state_dict())
            packed = KFAC(pack, "cross_entropy", damping=1.0, **options)
            packed.load_state_dict(state)
        inputs, targets = minibatch()
        found = packed.step(inputs, targets)
        for member, optimizer in enumerate(separate):
            wanted = optimizer.step(inputs[member], targets[member])
            torch.testing.assert_close([value[member] for value in found], list(wanted), rtol=1e-8, atol=1e-13)


def test_a_member_that_diverges_leaves_the_others_alone() -> None:
    models = [mlp(WIDTHS).double() for _ in range(2)]
    pack, alone = PerceptronPack(models), KFAC(models[1], "cross_entropy", fisher="exact")
    packed = KFAC(pack, "cross_entropy", fisher="exact")
    for _ in range(4):
        inputs, targets = minibatch(2)
        inputs[0] = float("nan")
        found, wanted = packed.step(inputs, targets), alone.step(inputs[1], targets[1])
        assert found.loss[0].isnan()
        torch.testing.assert_close(found.loss[1], wanted.loss, rtol=1e-9, atol=0)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="on_nonfinite='skip' is for one network"):
        KFAC(pack_of(), "cross_entropy", on_nonfinite="skip").step(*minibatch())
    with pytest.raises(ValueError, match="lr of network 1 must be at least 0"):
        KFAC(pack_of(), "cross_entropy", lr=(0.1, -0.1, 0.1))
    with pytest.raises(ValueError, match="momentum must be one number, or 3 for as many networks"):
        KFAC(pack_of(), "cross_entropy", momentum=(0.1, 0.1))
    first, *others = (pack := pack_of()).parameters()
    groups: list[dict[str, Any]] = [{"params": [first], "lr": (0.1, 0.2, 0.3)}, {"params": others}]
    with pytest.raises(ValueError, match="lr of networks side by side must be the same in all parameter groups"):
        KFAC(pack, "cross_entropy", lr=0.1, params=groups).step(*minibatch())
    with pytest.raises(ValueError, match=r"^networks side by side take neither microbatch nor process_group$"):
        KFAC(pack_of(), "cross_entropy", microbatch=4).step(*minibatch())
    pack = pack_of()
    with pytest.raises(ValueError, match=r"^SGD cannot be a direction of networks side by side$"):
        QLR(pack, "cross_entropy", torch.optim.SGD(pack.parameters())).step(*minibatch())
