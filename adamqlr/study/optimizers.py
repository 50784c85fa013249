"""The optimizers of the study by name (paper, section 4 and appendix B).

A new optimizer is one module with a class ``(model, loss, **options)`` that has ``step(inputs, targets)``, and one
entry here. Importing this module does not import PyTorch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from adamqlr.errors import UserError
from adamqlr.space import Distribution, choice, loguniform, one_minus_loguniform

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from adamqlr.optim.passes.losses import Loss


@dataclass(frozen=True)
class OptimizerSpec:
    """One optimizer of the study.

    Attributes:
        label: Its name in figures and tables.
        factory: ``module:class`` that makes it.
        options: Fixed keyword arguments of the class.
        space: What is tuned: ``batch_size`` and keyword arguments of the class. Empty: nothing.
        batch_size: The batch size where it is not tuned; None for the dataset's own.
        required: Keyword arguments that must be given although the class has a default.
        member_options: Keyword arguments that may differ between networks side by side
            (:class:`adamqlr.optim.passes.perceptron.PerceptronPack`). Empty: it trains no such networks.
    """

    label: str
    factory: str
    options: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Distribution] = field(default_factory=dict)
    batch_size: int | None = None
    required: tuple[str, ...] = ()
    member_options: tuple[str, ...] = ()

    @property
    def packable(self) -> bool:
        """Whether it can train several networks side by side."""
        return bool(self.member_options)


class StudyOptimizer(Protocol):
    """What the study asks of an optimizer, beyond being a :class:`torch.optim.Optimizer`."""

    def step(self, inputs: "Tensor", targets: "Tensor") -> Any:
        """Take one step on a minibatch; return a tuple with at least ``loss`` and ``lr``, 0-d tensors."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what :meth:`load_state_dict` takes up again."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved state, to the same numbers."""
        ...


BATCH_SIZES = choice(50, 100, 200, 400, 800, 1600, 3200)
_SGD_MEMBERS = ("lr", "momentum", "weight_decay")
_ADAM_MEMBERS = ("lr", "eps")
_ADAMQLR_MEMBERS = ("damping", "damping_decrease", "damping_increase", "lr_clipping", "lr_rescaling")
_ADAMQLR_SPACE = {
    "batch_size": BATCH_SIZES,
    "damping": loguniform(1e-8, 1),
    "damping_decrease": loguniform(0.5, 1),
    "damping_increase": loguniform(1, 4),
}

OPTIMIZERS: dict[str, OptimizerSpec] = {
    "sgd_minimal": OptimizerSpec(
        "SGD Minimal",
        "adamqlr.optim.sgd:SGD",
        space={"batch_size": BATCH_SIZES, "lr": loguniform(1e-6, 1e-1)},
        member_options=_SGD_MEMBERS,
    ),
    "sgd_full": OptimizerSpec(
        "SGD Full",
        "adamqlr.optim.sgd:SGD",
        space={
            "batch_size": BATCH_SIZES,
            "lr": loguniform(1e-6, 1e-1),
            "momentum": one_minus_loguniform(1e-4, 0.3),
            "weight_decay": loguniform(1e-10, 1),
        },
        member_options=_SGD_MEMBERS,
    ),
    "adam": OptimizerSpec(
        "Adam",
        "adamqlr.optim.adam:Adam",
        space={"batch_size": BATCH_SIZES, "lr": loguniform(1e-6, 1)},
        member_options=_ADAM_MEMBERS,
    ),
    "adam_untuned": OptimizerSpec(
        "Adam (Untuned)", "adamqlr.optim.adam:Adam", options={"lr": 1e-3}, member_options=_ADAM_MEMBERS
    ),
    "adam_eps": OptimizerSpec(
        "Adam (Tuned ε)",
        "adamqlr.optim.adam:Adam",
        space={"batch_size": BATCH_SIZES, "lr": loguniform(1e-6, 1), "eps": loguniform(1e-8, 1)},
        member_options=_ADAM_MEMBERS,
    ),
    "adamqlr": OptimizerSpec(
        "AdamQLR", "adamqlr.optim.adamqlr:AdamQLR", space=_ADAMQLR_SPACE, member_options=_ADAMQLR_MEMBERS
    ),
    "adamqlr_untuned": OptimizerSpec(
        "AdamQLR (Untuned)",
        "adamqlr.optim.adamqlr:AdamQLR",
        options={"damping": 1e-3, "damping_decrease": 0.5, "damping_increase": 2.0},
        batch_size=3200,
        member_options=_ADAMQLR_MEMBERS,
    ),
    "adamqlr_undamped": OptimizerSpec(
        "AdamQLR (Undamped)",
        "adamqlr.optim.adamqlr:AdamQLR",
        options={"damping": 0.0, "adapt_damping": False},
        space={"batch_size": BATCH_SIZES},
        member_options=_ADAMQLR_MEMBERS,
    ),
    "adamqlr_hessian": OptimizerSpec(
        "AdamQLR (Hessian)",
        "adamqlr.optim.adamqlr:AdamQLR",
        options={"curvature": "hessian"},
        space=_ADAMQLR_SPACE,
        member_options=_ADAMQLR_MEMBERS,
    ),
    "kfac": OptimizerSpec(
        "K-FAC",
        "adamqlr.optim.kfac:KFAC",
        space={"batch_size": BATCH_SIZES, "damping": loguniform(1e-8, 1)},
    ),
    "kfac_untuned": OptimizerSpec(
        "K-FAC (Untuned)",
        "adamqlr.optim.kfac:KFAC",
        options={"damping": 1.0},
        batch_size=3200,
    ),
    "kfac_unadaptive": OptimizerSpec(
        "K-FAC (Unadaptive)",
        "adamqlr.optim.kfac:KFAC",
        options={"adapt_damping": False},
        space={
            "batch_size": BATCH_SIZES,
            "damping": loguniform(1e-8, 1),
            "lr": loguniform(1e-6, 1),
            "momentum": one_minus_loguniform(1e-4, 0.3),
        },
        required=("lr", "momentum"),
    ),
    "baydin_sgd": OptimizerSpec(
        "Baydin SGD",
        "adamqlr.optim.baydin:BaydinSGD",
        space={
            "batch_size": BATCH_SIZES,
            "lr": loguniform(1e-6, 1),
            "hypergradient_lr": loguniform(1e-6, 1),
        },
        member_options=("lr", "hypergradient_lr"),
    ),
}


def make_optimizer(
    key: str, model: "torch.nn.Module", loss: "str | Loss", options: Mapping[str, Any]
) -> StudyOptimizer:
    """Make the optimizer ``key`` with ``options`` on top of its fixed ones.

    Raises:
        UserError: An option is out of its range, or the optimizer cannot train the model.
    """
    spec = OPTIMIZERS[key]
    module, _, name = spec.factory.partition(":")
    factory = getattr(import_module(module), name)
    try:
        return factory(model, loss, **{**spec.options, **options})
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer '{key}': {error}") from error


def stack_options(key: str, options: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return options for networks side by side from those of each: equal ones stay as they are, others become tuples.

    Args:
        key: The optimizer.
        options: One mapping a network, all of the same names.

    Raises:
        UserError: One that differs must be the same for all.
    """
    stacked: dict[str, Any] = {}
    for name in options[0]:
        values = tuple(one[name] for one in options)
        if all(value == values[0] for value in values):
            stacked[name] = values[0]
        elif name in OPTIMIZERS[key].member_options:
            stacked[name] = values
        else:
            raise UserError(f"optimizer '{key}': networks side by side share their {name}, got {values!r}")
    return stacked
