"""The optimizers of the study by name (paper, section 4 and appendix B), and all that is known of each.

A new optimizer is one class ``(model, loss, **options)`` that has ``step(inputs, targets)``, and one entry here; any of
PyTorch's needs neither, only a few lines of configuration. Importing this module does not import PyTorch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adamqlr.study.optimizer_settings import DIRECTION, OptimizerConfig, ScheduleConfig
from adamqlr.study.space import Distribution, choice, loguniform, one_minus_loguniform


@dataclass(frozen=True)
class OptimizerSpec:
    """One optimizer of the study: all that is known of it stands here.

    Attributes:
        key: Its name in the configuration and in files.
        label: Its name in figures and tables.
        factory: ``module:class`` that makes it.
        family: What it is a variant of; claims about AdamQLR's hyperparameters are about the family ``AdamQLR``.
        color: Of its lines, everywhere.
        line: Matplotlib's style of them: dashed where untuned, dotted where an ablation.
        options: Fixed keyword arguments of the class.
        space: What is tuned: ``batch_size`` and keyword arguments of the class. Empty: nothing.
        batch_size: The batch size where it is not tuned; None for the dataset's own.
        required: Keyword arguments that must be given although the class has a default.
        member_options: Keyword arguments that may differ between networks side by side
            (:class:`adamqlr.optim.passes.perceptron.PerceptronPack`). Empty: it trains no such networks.
        is_baseline: Whether it is among those that untuned AdamQLR is measured against.
        has_damping: Whether it has a damping λ that the figures of damping show.
        wraps: ``module:Class`` or ``file.py:Class``, or a direction's name, that the factory is given besides.
        schedule: How its learning rate changes, if it does.
    """

    key: str
    label: str
    factory: str
    family: str
    color: str
    line: str = "-"
    options: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Distribution] = field(default_factory=dict)
    batch_size: int | None = None
    required: tuple[str, ...] = ()
    member_options: tuple[str, ...] = ()
    is_baseline: bool = False
    has_damping: bool = False
    wraps: str | None = None
    schedule: ScheduleConfig | None = None

    @property
    def packable(self) -> bool:
        """Whether it can train several networks side by side."""
        return bool(self.member_options) and self.schedule is None


BATCH_SIZES = choice(50, 100, 200, 400, 800, 1600, 3200)
_SGD_MEMBERS = ("lr", "momentum", "weight_decay")
_ADAM_MEMBERS = ("lr", "eps")
_ADAMQLR_MEMBERS = ("damping", "damping_decrease", "damping_increase", "lr_clipping", "lr_rescaling")
_KFAC_MEMBERS = ("damping", "lr", "momentum", "lr_clipping")
_ADAMQLR_SPACE = {
    "batch_size": BATCH_SIZES,
    "damping": loguniform(1e-8, 1),
    "damping_decrease": loguniform(0.5, 1),
    "damping_increase": loguniform(1, 4),
}

_CATALOGUE = (
    OptimizerSpec(
        "sgd_minimal",
        "SGD Minimal",
        "adamqlr.optim.sgd:SGD",
        "SGD",
        "#7fb3d9",
        is_baseline=True,
        space={"batch_size": BATCH_SIZES, "lr": loguniform(1e-6, 1e-1)},
        member_options=_SGD_MEMBERS,
    ),
    OptimizerSpec(
        "sgd_full",
        "SGD Full",
        "adamqlr.optim.sgd:SGD",
        "SGD",
        "#1f6fb4",
        is_baseline=True,
        space={
            "batch_size": BATCH_SIZES,
            "lr": loguniform(1e-6, 1e-1),
            "momentum": one_minus_loguniform(1e-4, 0.3),
            "weight_decay": loguniform(1e-10, 1),
        },
        member_options=_SGD_MEMBERS,
    ),
    OptimizerSpec(
        "adam",
        "Adam",
        "adamqlr.optim.adam:Adam",
        "Adam",
        "#e6550d",
        is_baseline=True,
        space={"batch_size": BATCH_SIZES, "lr": loguniform(1e-6, 1)},
        member_options=_ADAM_MEMBERS,
    ),
    OptimizerSpec(
        "adam_untuned",
        "Adam (Untuned)",
        "adamqlr.optim.adam:Adam",
        "Adam",
        "#f2a33a",
        line="--",
        options={"lr": 1e-3},
        member_options=_ADAM_MEMBERS,
    ),
    OptimizerSpec(
        "adam_eps",
        "Adam (Tuned ε)",
        "adamqlr.optim.adam:Adam",
        "Adam",
        "#8c2d04",
        line=":",
        is_baseline=True,
        space={"batch_size": BATCH_SIZES, "lr": loguniform(1e-6, 1), "eps": loguniform(1e-8, 1)},
        member_options=_ADAM_MEMBERS,
    ),
    OptimizerSpec(
        "baydin_sgd",
        "Baydin SGD",
        "adamqlr.optim.baydin:BaydinSGD",
        "SGD",
        "#8c8c8c",
        is_baseline=True,
        space={"batch_size": BATCH_SIZES, "lr": loguniform(1e-6, 1), "hypergradient_lr": loguniform(1e-6, 1)},
        member_options=("lr", "hypergradient_lr"),
    ),
    OptimizerSpec(
        "kfac",
        "K-FAC",
        "adamqlr.optim.kfac:KFAC",
        "K-FAC",
        "#2ca25f",
        is_baseline=True,
        has_damping=True,
        space={"batch_size": BATCH_SIZES, "damping": loguniform(1e-8, 1)},
        member_options=_KFAC_MEMBERS,
    ),
    OptimizerSpec(
        "kfac_untuned",
        "K-FAC (Untuned)",
        "adamqlr.optim.kfac:KFAC",
        "K-FAC",
        "#84cc83",
        line="--",
        has_damping=True,
        options={"damping": 1.0},
        batch_size=3200,
        member_options=_KFAC_MEMBERS,
    ),
    OptimizerSpec(
        "kfac_unadaptive",
        "K-FAC (Unadaptive)",
        "adamqlr.optim.kfac:KFAC",
        "K-FAC",
        "#00441b",
        line=":",
        is_baseline=True,
        has_damping=True,
        options={"adapt_damping": False},
        space={
            "batch_size": BATCH_SIZES,
            "damping": loguniform(1e-8, 1),
            "lr": loguniform(1e-6, 1),
            "momentum": one_minus_loguniform(1e-4, 0.3),
        },
        required=("lr", "momentum"),
        member_options=_KFAC_MEMBERS,
    ),
    OptimizerSpec(
        "adamqlr",
        "AdamQLR",
        "adamqlr.optim.adamqlr:AdamQLR",
        "AdamQLR",
        "#6a3d9a",
        has_damping=True,
        space=_ADAMQLR_SPACE,
        member_options=_ADAMQLR_MEMBERS,
    ),
    OptimizerSpec(
        "adamqlr_untuned",
        "AdamQLR (Untuned)",
        "adamqlr.optim.adamqlr:AdamQLR",
        "AdamQLR",
        "#d6218b",
        line="--",
        has_damping=True,
        options={"damping": 1e-3, "damping_decrease": 0.5, "damping_increase": 2.0},
        batch_size=3200,
        member_options=_ADAMQLR_MEMBERS,
    ),
    OptimizerSpec(
        "adamqlr_undamped",
        "AdamQLR (Undamped)",
        "adamqlr.optim.adamqlr:AdamQLR",
        "AdamQLR",
        "#a58fd0",
        line=":",
        options={"damping": 0.0, "adapt_damping": False},
        space={"batch_size": BATCH_SIZES},
        member_options=_ADAMQLR_MEMBERS,
    ),
    OptimizerSpec(
        "adamqlr_hessian",
        "AdamQLR (Hessian)",
        "adamqlr.optim.adamqlr:AdamQLR",
        "AdamQLR",
        "#111111",
        line="-.",
        has_damping=True,
        options={"curvature": "hessian"},
        space=_ADAMQLR_SPACE,
        member_options=_ADAMQLR_MEMBERS,
    ),
    OptimizerSpec(
        "adamqlr_hessian_untuned",
        "AdamQLR (Untuned, Hessian)",
        "adamqlr.optim.adamqlr:AdamQLR",
        "AdamQLR",
        "#777777",
        line="--",
        has_damping=True,
        options={"curvature": "hessian", "damping": 1e-3, "damping_decrease": 0.5, "damping_increase": 2.0},
        batch_size=3200,
        member_options=_ADAMQLR_MEMBERS,
    ),
    OptimizerSpec(
        "adamqlr_clipped",
        "AdamQLR (Clipped)",
        "adamqlr.optim.adamqlr:AdamQLR",
        "AdamQLR",
        "#b15928",
        line="-.",
        has_damping=True,
        space={**_ADAMQLR_SPACE, "lr_clipping": loguniform(1e-4, 10)},
        member_options=_ADAMQLR_MEMBERS,
    ),
)

OPTIMIZERS: dict[str, OptimizerSpec] = {spec.key: spec for spec in _CATALOGUE}

# Eight hues of equal lightness and saturation (HUSL), for optimizers of one's own.
_SPARE_COLORS = ("#f77189", "#ce9032", "#97a431", "#32b166", "#36ada4", "#39a7d0", "#a48cf4", "#f561dd")
_SPARE_LINES = ("-", "--", ":", "-.")


def own_spec(key: str, settings: OptimizerConfig, number: int) -> OptimizerSpec:
    """Return what an optimizer of one's own is.

    Args:
        key: Its name.
        settings: What the configuration says of it.
        number: Its place among its like, from 0, which decides its color and line.
    """
    color, line = _SPARE_COLORS[number % 8], _SPARE_LINES[number // 8 % 4]
    wraps = settings.optimizer or settings.direction
    assert wraps is not None
    name = wraps.rpartition(":")[2]
    if settings.direction is None:
        return OptimizerSpec(
            key,
            settings.label or key,
            "adamqlr.training.own_optimizers:make_own",
            settings.family or name,
            color,
            line,
            is_baseline=bool(settings.space),
            has_damping="damping" in settings.space or bool(settings.options.get("damping")),
            batch_size=settings.batch_size,
            wraps=wraps,
        )
    return OptimizerSpec(
        key,
        settings.label or key,
        "adamqlr.training.own_optimizers:make_heuristics",
        settings.family or f"QLR over {name}",
        color,
        line,
        options=settings.heuristics,
        has_damping=bool(settings.heuristics.get("adapt_damping", True) or settings.heuristics.get("damping", 1)),
        batch_size=settings.batch_size,
        wraps=wraps,
    )


def own_options(settings: OptimizerConfig) -> dict[str, Any]:
    """Return the configured options under the names that hyperparameters have: a direction's are ``direction.NAME``."""
    prefix = DIRECTION if settings.direction is not None else ""
    return {f"{prefix}{name}": value for name, value in settings.options.items()}
