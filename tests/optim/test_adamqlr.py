"""AdamQLR as a citizen of PyTorch: any module, any loop, state that round-trips, errors that name the culprit."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from adamqlr import AdamQLR


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


def minibatch(rows: int = 12) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, 1, 6, 6), torch.randint(3, (rows,))


def test_training_lowers_the_loss() -> None:
    model = network()
    optimizer = AdamQLR(model, "cross_entropy")
    inputs, targets = minibatch(60)
    losses = [float(optimizer.step(inputs, targets).loss) for _ in range(30)]
    assert losses[-1] < 0.1 * losses[0]


def test_info_describes_the_step_that_was_taken() -> None:
    model = network().double()
    optimizer = AdamQLR(model, "cross_entropy")
    inputs, targets = minibatch()
    for _ in range(5):
        before = copy.deepcopy(model)
        info = optimizer.step(inputs.double(), targets)
        loss = nn.functional.cross_entropy(before(inputs.double()), targets)
        moved = nn.functional.cross_entropy(copy.deepcopy(model)(inputs.double()), targets)
        assert float(info.loss) == pytest.approx(loss.item(), rel=1e-12)
        assert float(info.true_change) == pytest.approx((moved - loss).item(), rel=1e-6)
        assert all(value.ndim == 0 and not value.requires_grad for value in info)


@pytest.mark.parametrize("curvature", ["fisher", "hessian"])
def test_buffers_move_as_in_one_ordinary_forward_pass(curvature: str) -> None:
    model = network()
    reference = copy.deepcopy(model)
    inputs, targets = minibatch()
    AdamQLR(model, "cross_entropy", curvature=curvature).step(inputs, targets)
    reference(inputs)
    for moved, expected in zip(model.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(moved, expected)


def test_gradients_are_left_in_grad() -> None:
    model = network()
    reference = copy.deepcopy(model)
    inputs, targets = minibatch()
    optimizer = AdamQLR(model, "cross_entropy")
    for _ in range(2):
        nn.functional.cross_entropy(reference(inputs), targets).backward()
        optimizer.zero_grad(set_to_none=True)
        optimizer.step(inputs, targets)
        for parameter, expected in zip(model.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-4, atol=1e-6)
        reference.load_state_dict(model.state_dict())
        reference.zero_grad()


def test_frozen_parameters_stay() -> None:
    model = network()
    frozen = [model.get_parameter(name).requires_grad_(False) for name in ("0.weight", "1.bias")]
    free = model.get_parameter("4.weight")
    kept, before = [parameter.clone() for parameter in frozen], free.clone()
    AdamQLR(model, "cross_entropy").step(*minibatch())
    torch.testing.assert_close(frozen, kept, rtol=0, atol=0)
    assert not torch.equal(free, before)


class OneWeight(nn.Module):
    """Two layers, of which both multiply with the same matrix."""

    def __init__(self, weight: Tensor, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.weight, self.first, self.second = (nn.Parameter(part.detach().clone()) for part in (weight, first, second))

    def forward(self, inputs: Tensor) -> Tensor:
        features = nn.functional.linear(inputs, self.weight, self.first).tanh()
        return nn.functional.linear(features, self.weight, self.second)


def test_tied_parameters_move_as_the_one_that_they_are() -> None:
    first, second = nn.Linear(5, 5).double(), nn.Linear(5, 5).double()
    second.weight = first.weight
    model, reference = nn.Sequential(first, nn.Tanh(), second), OneWeight(first.weight, first.bias, second.bias)
    optimizers = [AdamQLR(either, "half_mse") for either in (model, reference)]
    for _ in range(3):
        inputs, targets = torch.randn(2, 8, 5, dtype=torch.float64)
        found, wanted = (optimizer.step(inputs, targets) for optimizer in optimizers)
        torch.testing.assert_close(tuple(found), tuple(wanted), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(second.weight, reference.weight, rtol=1e-9, atol=1e-12)


def test_parameters_that_do_not_take_part_keep_their_values() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    model.register_parameter("unused", nn.Parameter(torch.ones(4)))
    optimizer = AdamQLR(model, "half_mse")
    optimizer.step(torch.randn(6, 3), torch.randn(6, 2))
    torch.testing.assert_close(model.unused, torch.ones(4), rtol=0, atol=0)


def test_evaluation_mode_uses_the_running_statistics() -> None:
    model = network().double()
    model(torch.randn(30, 1, 6, 6).double())
    model.eval()
    reference = copy.deepcopy(model)
    inputs, targets = minibatch()
    info = AdamQLR(model, "cross_entropy").step(inputs.double(), targets)
    expected = nn.functional.cross_entropy(reference(inputs.double()), targets)
    assert float(info.loss) == pytest.approx(float(expected), rel=1e-12)
    for moved, kept in zip(model.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(moved, kept, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_state_round_trips_through_a_file_to_the_same_numbers(dtype: torch.dtype) -> None:
    batches = [(x.to(dtype), y) for x, y in (minibatch() for _ in range(8))]
    model = network().to(dtype)
    optimizer = AdamQLR(model, "cross_entropy", damping=0.1)
    for batch in batches[:4]:
        optimizer.step(*batch)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    for batch in batches[4:]:
        info = optimizer.step(*batch)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = network().to(dtype)
    resumed.load_state_dict(saved["model"])
    again = AdamQLR(resumed, "cross_entropy", damping=0.5)
    again.load_state_dict(saved["optimizer"])
    for batch in batches[4:]:
        info_again = again.step(*batch)
    torch.testing.assert_close(list(resumed.state_dict().values()), list(model.state_dict().values()), rtol=0, atol=0)
    torch.testing.assert_close(tuple(info_again), tuple(info), rtol=0, atol=0)


def test_vanished_gradient_changes_nothing() -> None:
    model = nn.Linear(2, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    optimizer = AdamQLR(model, "half_mse", damping=0.5)
    info = optimizer.step(torch.ones(4, 2).double(), torch.zeros(4, 1).double())
    assert float(info.lr) == 0
    assert float(info.damping) == 0.5
    assert torch.isnan(info.rho)
    assert torch.count_nonzero(model.weight) == 0


def test_torch_losses_and_objects_with_the_protocol_are_accepted() -> None:
    class Huberless:
        def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return nn.functional.mse_loss(outputs, targets)

        def hessian_vector_product(self, outputs: Tensor, targets: Tensor, vector: Tensor) -> Tensor:
            return 2 * vector / outputs.numel()

    inputs, targets = torch.randn(6, 3), torch.randn(6, 2)
    infos = []
    for loss in (nn.MSELoss(), Huberless()):
        torch.manual_seed(1)
        infos.append(AdamQLR(nn.Linear(3, 2), loss).step(inputs, targets))
    torch.testing.assert_close(tuple(infos[0]), tuple(infos[1]))


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"eps": -1.0}, "eps"),
        ({"damping": -1.0}, "damping"),
        ({"damping_decrease": 1.5}, "damping_decrease"),
        ({"damping_increase": 0.5}, "damping_increase"),
        ({"min_damping": -1e-8}, "min_damping"),
        ({"lr_clipping": 0.0}, "lr_clipping"),
        ({"lr_rescaling": 0.0}, "lr_rescaling"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"curvature": "newton"}, "curvature"),
        ({"adapt_damping": "false"}, "adapt_damping must be True or False, got .false."),
    ],
)
def test_bad_options_are_named(options: dict[str, object], culprit: str) -> None:
    with pytest.raises(ValueError, match=culprit):
        AdamQLR(nn.Linear(2, 1), "half_mse", **options)


def test_unusable_models_losses_and_minibatches_are_refused() -> None:
    frozen = nn.Linear(2, 1).requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameters"):
        AdamQLR(frozen, "half_mse")
    mixed = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1).double())
    with pytest.raises(ValueError, match=r"1\.weight"):
        AdamQLR(mixed, "half_mse")
    with pytest.raises(ValueError, match="unknown loss 'hinge'"):
        AdamQLR(nn.Linear(2, 1), "hinge")
    with pytest.raises(ValueError, match=r"L1Loss has no curvature.*HuberLoss"):
        AdamQLR(nn.Linear(2, 1), nn.L1Loss())
    with pytest.raises(ValueError, match="empty"):
        AdamQLR(nn.Linear(2, 1), "half_mse").step(torch.zeros(0, 2), torch.zeros(0, 1))
    with pytest.raises(ValueError, match="shape"):
        AdamQLR(nn.Linear(2, 1), "half_mse").step(torch.zeros(3, 2), torch.zeros(3))
    model = nn.Linear(2, 1)
    optimizer = AdamQLR(model, "half_mse")
    model.double()
    with pytest.raises(ValueError, match=r"weight moved to torch\.float64"):
        optimizer.step(torch.zeros(3, 2).double(), torch.zeros(3, 1).double())
