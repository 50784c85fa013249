"""Logits for every position of a sequence, and the transformers that make them."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacfwd
from torch.nn import functional

from adamqlr import KFAC, AdamQLR
from adamqlr.optim.adam import Adam
from adamqlr.optim.passes.losses import CrossEntropy
from adamqlr.optim.passes.output_fisher import CategoricalFisher
from adamqlr.problems.gpt2 import Gpt2
from adamqlr.study.settings import TransformerConfig

ROWS, CLASSES, LENGTH = 3, 4, 5


def dense_output_hessian(outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return the Hessian of PyTorch's own loss, shape (outputs, outputs)."""
    hessian = torch.autograd.functional.hessian(
        lambda out: functional.cross_entropy(out.view_as(outputs), targets, label_smoothing=smoothing),
        outputs.flatten(),
    )
    assert isinstance(hessian, Tensor)
    return hessian


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("positions", [(LENGTH,), (2, 3)], ids=["sequence", "image"])
def test_the_output_hessian_is_the_dense_one(positions: tuple[int, ...], smoothing: float) -> None:
    torch.manual_seed(0)
    outputs = torch.randn(ROWS, CLASSES, *positions, dtype=torch.float64)
    targets = torch.randint(CLASSES, (ROWS, *positions))
    loss = CrossEntropy(label_smoothing=smoothing)
    units = torch.eye(outputs.numel(), dtype=torch.float64)
    ours = torch.stack(
        [loss.hessian_vector_product(outputs, targets, unit.view_as(outputs)).flatten() for unit in units]
    )
    torch.testing.assert_close(ours, dense_output_hessian(outputs, targets, smoothing), rtol=1e-9, atol=1e-14)
    rows = outputs.movedim(1, -1).reshape(-1, CLASSES)
    per_target = functional.cross_entropy(rows, targets.flatten(), label_smoothing=smoothing)
    torch.testing.assert_close(loss(outputs, targets), per_target)


def test_exact_cotangents_are_a_square_root_of_each_cases_hessian() -> None:
    torch.manual_seed(0)
    outputs = torch.randn(ROWS, CLASSES, LENGTH, dtype=torch.float64)
    targets = torch.zeros(ROWS, LENGTH, dtype=torch.int64)
    fisher = CategoricalFisher(CrossEntropy())
    columns = [column[0].flatten() for column in fisher.exact_cotangents(outputs, targets)]
    assert len(columns) == CLASSES * LENGTH
    first = dense_output_hessian(outputs[:1], targets[:1])
    torch.testing.assert_close(sum(torch.outer(c, c) for c in columns), first, rtol=1e-9, atol=1e-14)


def test_sampled_cotangents_have_the_exact_ones_second_moment() -> None:
    torch.manual_seed(0)
    case = torch.randn(1, 3, 2, dtype=torch.float64)
    targets = torch.zeros(40_000, 2, dtype=torch.int64)
    drawn = CategoricalFisher(CrossEntropy()).sample_cotangent(case.expand(40_000, 3, 2), targets).flatten(1)
    expected = dense_output_hessian(case, torch.zeros(1, 2, dtype=torch.int64))
    torch.testing.assert_close(drawn.T @ drawn / len(drawn), expected, rtol=0, atol=5e-3)


def gpt2() -> nn.Module:
    return Gpt2(TransformerConfig(layers=1, heads=2, width=4, length=LENGTH), vocabulary=CLASSES)


class Attention(nn.Module):
    """One causal attention in PyTorch's fused form."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, 4)
        self.projections = nn.Linear(4, 12)
        self.output = nn.Linear(4, CLASSES)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True)

    def forward(self, tokens: Tensor) -> Tensor:
        heads = self.projections(self.embedding(tokens)).unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4)
        return self.output(self.attend(*heads).transpose(1, 2).flatten(2)).transpose(1, 2)


class FlashAttention(Attention):
    """The same, with the choice of the fused kernel made inside."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
            return super().attend(query, key, value)


class EncoderLayer(nn.Module):
    """PyTorch's own transformer layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, 4)
        self.layer = nn.TransformerEncoderLayer(4, 2, 4, dropout=0.0, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.layer(self.embedding(tokens)).transpose(1, 2)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "gpt2": gpt2,
    "fused attention": Attention,
    "PyTorch's layer": EncoderLayer,
}


def text(rows: int) -> tuple[Tensor, Tensor]:
    """Draw tokens, and targets that can be learned: made up."""
    tokens = torch.randint(CLASSES, (rows, LENGTH))
    return tokens, (tokens + 1) % CLASSES


def dense_curvature(model: nn.Module, curvature: str, tokens: Tensor, targets: Tensor) -> Tensor:
    """Return C = Jᵀ H J, or the loss's Hessian, from functions of PyTorch alone, in the order of the parameters."""
    names, shapes = zip(*((name, p.shape) for name, p in model.named_parameters()), strict=True)
    theta = nn.utils.parameters_to_vector(model.parameters()).detach()

    def outputs(values: Tensor) -> Tensor:
        pieces = values.split([shape.numel() for shape in shapes])
        named = {name: piece.view(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return functional_call(model, named, (tokens,))

    if curvature == "hessian":
        # Not by torch.func, whose second derivatives of layer normalization are off (torch 2.11).
        matrix = torch.autograd.functional.hessian(
            lambda values: functional.cross_entropy(outputs(values), targets), theta
        )
        assert isinstance(matrix, Tensor)
        return matrix
    jacobian = jacfwd(outputs)(theta).flatten(0, 2)
    return jacobian.T @ dense_output_hessian(outputs(theta), targets) @ jacobian


@pytest.mark.parametrize("curvature", ["fisher", "hessian"])
@pytest.mark.parametrize("network", NETWORKS)
def test_curvature_is_that_of_the_dense_matrix(network: str, curvature: Any) -> None:
    torch.manual_seed(1)
    model = NETWORKS[network]().double()
    optimizer = AdamQLR(model, "cross_entropy", curvature=curvature, damping=0.1, adapt_damping=False, lr_clipping=0.1)
    for step in range(3):
        tokens, targets = text(6)
        before = copy.deepcopy(model)
        theta = nn.utils.parameters_to_vector(before.parameters()).detach()
        info = optimizer.step(tokens, targets)
        direction = (theta - nn.utils.parameters_to_vector(model.parameters()).detach()) / info.lr
        matrix = dense_curvature(before, curvature, tokens, targets) + 0.1 * torch.eye(len(theta), dtype=torch.float64)
        assert float(info.curvature) == pytest.approx(float(direction @ matrix @ direction), rel=1e-8), step


class ByItsEmbedding(nn.Module):
    """GPT-2 without an output layer: the embedding's matrix is multiplied with."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, tokens: Tensor) -> Tensor:
        features = self.transformer(tokens).last_hidden_state
        return functional.linear(features, self.transformer.get_parameter("wte.weight")).transpose(1, 2)


def test_a_tied_embedding_moves_as_the_one_matrix_that_it_is() -> None:
    torch.manual_seed(0)
    model = gpt2().double()
    assert isinstance(model, Gpt2)
    reference, batch = ByItsEmbedding(copy.deepcopy(model.network.transformer)), text(6)
    for either in (model, reference):
        AdamQLR(either, "cross_entropy").step(*batch)
    wanted = reference.get_parameter("transformer.wte.weight")
    torch.testing.assert_close(model.network.lm_head.weight, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("network", NETWORKS)
def test_steps_reduce_the_loss(network: str) -> None:
    torch.manual_seed(2)
    model = NETWORKS[network]()
    optimizer = AdamQLR(model, "cross_entropy", lr_clipping=0.1)
    tokens, targets = text(32)
    losses = [float(optimizer.step(tokens, targets).loss) for _ in range(25)]
    assert losses[-1] < 0.7 * losses[0]


class PaddedEncoder(nn.Module):
    """An encoder that is told which tokens are padding, and reads its outputs there all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CLASSES, 4)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2)
        self.output = nn.Linear(4, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        features = self.encoder(self.embedding(tokens), src_key_padding_mask=tokens == 0)
        return self.output(features.mean(dim=1))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("maker", [AdamQLR, KFAC])
def test_an_encoder_in_eval_mode_is_one_function_in_all_passes(maker: Any) -> None:
    torch.manual_seed(0)
    model = PaddedEncoder().eval()
    tokens, targets = torch.randint(1, CLASSES, (12, LENGTH)), torch.randint(CLASSES, (12,))
    tokens[1:, -2:] = 0
    optimizer = maker(model, "cross_entropy")
    for _ in range(3):
        # With gradients, the encoder takes the path that is differentiated.
        before = functional.cross_entropy(model(tokens), targets)
        info = optimizer.step(tokens, targets)
        change = functional.cross_entropy(model(tokens), targets) - before
        assert float(info.true_change) == pytest.approx(change.item(), rel=1e-3)
    assert torch.backends.mha.get_fastpath_enabled(), "it is as before"


@pytest.mark.parametrize("curvature", ["fisher", "hessian"])
def test_an_operation_without_second_derivatives_is_named(curvature: Any) -> None:
    model, minibatch = FlashAttention(), text(6)
    optimizer = AdamQLR(model, "cross_entropy", curvature=curvature)
    with pytest.raises(
        RuntimeError, match=r"aten::_scaled_dot_product_flash_attention.*attn_implementation='eager'"
    ) as caught:
        optimizer.step(*minibatch)
    assert "\n" not in str(caught.value)
    # Optimizers of the first order do not mind.
    Adam(model, "cross_entropy", lr=1e-3).step(*minibatch)
