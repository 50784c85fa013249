"""The claims (paper, abstract and sections 4 and 5), each a statement and a function that weighs it.

A new claim is one entry of :data:`CLAIMS`; most need nothing but a function of :mod:`adamqlr.claims.evidence`.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from adamqlr.claims.course import generalizes_worse, learning_rate_grows, overfits, ranks_high
from adamqlr.claims.evidence import (
    Evidence,
    Wanted,
    against_best_baseline,
    effect_varies,
    matters_little,
    matters_more,
    pairwise,
    value_is_best,
)
from adamqlr.claims.heuristics import heuristics_claims
from adamqlr.claims.needs import lacks_optimizers, lacks_sweeps
from adamqlr.results.study import Study
from adamqlr.study.config import StudyConfig


class Claim(NamedTuple):
    """One claim.

    Attributes:
        key: Its name.
        statement: What is claimed, in one sentence.
        weigh: Yields the evidence that a study holds.
        lacks: Says what to add to a study that holds none.
    """

    key: str
    statement: str
    weigh: Callable[[Study], Iterator[Evidence]]
    lacks: Callable[[Study], str]


def _compares(key: str, statement: str, subject: str, reference: str, wanted: Wanted = Wanted.BETTER) -> Claim:
    weighs = partial(pairwise, subject=subject, reference=reference, wanted=wanted)
    return Claim(key, statement, weighs, partial(lacks_optimizers, optimizers=(subject, reference)))


def _varies(
    key: str, statement: str, weighs: Callable[..., Iterator[Evidence]], parameter: str, **options: Any
) -> Claim:
    lacks = partial(lacks_sweeps, parameter=parameter, families=("AdamQLR",))
    return Claim(key, statement, partial(weighs, parameter=parameter, **options), lacks)


def _varies_more(key: str, statement: str, family: str, parameter: str) -> Claim:
    lacks = partial(lacks_sweeps, parameter=parameter, families=(family, "AdamQLR"))
    return Claim(key, statement, partial(matters_more, family=family, parameter=parameter), lacks)


CLAIMS = (
    Claim(
        "untuned_adamqlr",
        "Untuned AdamQLR is comparable with the best tuned baseline, performance against runtime.",
        partial(against_best_baseline, subject="adamqlr_untuned"),
        partial(
            lacks_optimizers,
            optimizers=("adamqlr_untuned",),
            otherwise="a tuned baseline, such as `adam`, on a dataset of `adamqlr_untuned`",
        ),
    ),
    _compares("tuned_adamqlr", "Tuned AdamQLR is comparable with tuned Adam.", "adamqlr", "adam", Wanted.COMPARABLE),
    Claim(
        "heuristics_vary",
        "K-FAC's heuristics on Adam's direction help on some datasets and harm on others.",
        partial(effect_varies, subject="adamqlr", reference="adam"),
        partial(lacks_optimizers, optimizers=("adamqlr", "adam"), datasets=2),
    ),
    _compares("untuned_pair", "Without tuning, AdamQLR performs better than Adam.", "adamqlr_untuned", "adam_untuned"),
    _compares(
        "adaptive_kfac",
        "Adapting learning rate, momentum and damping improves K-FAC.",
        "kfac",
        "kfac_unadaptive",
    ),
    _compares("damping", "Damping improves AdamQLR.", "adamqlr", "adamqlr_undamped"),
    _compares(
        "curvature",
        "AdamQLR with the Fisher matrix is comparable with AdamQLR with the Hessian.",
        "adamqlr",
        "adamqlr_hessian",
        Wanted.COMPARABLE,
    ),
    _compares(
        "tuned_epsilon",
        "AdamQLR is comparable with Adam whose ε is tuned too.",
        "adamqlr",
        "adam_eps",
        Wanted.COMPARABLE,
    ),
    _compares(
        "hypergradients",
        "AdamQLR is comparable with SGD whose learning rate follows hypergradients.",
        "adamqlr",
        "baydin_sgd",
        Wanted.COMPARABLE,
    ),
    Claim(
        "kfac_overfits",
        "K-FAC overfits by a margin.",
        partial(overfits, subject="kfac"),
        partial(lacks_optimizers, optimizers=("kfac",), otherwise="runs of `kfac` that record a validation loss"),
    ),
    Claim(
        "kfac_generalization",
        "K-FAC's generalization gap is at least AdamQLR's.",
        partial(generalizes_worse, subject="kfac", reference="adamqlr"),
        partial(lacks_optimizers, optimizers=("kfac", "adamqlr")),
    ),
    Claim(
        "growing_learning_rate",
        "The learning rate that AdamQLR selects grows during training.",
        partial(learning_rate_grows, subject="adamqlr"),
        partial(
            lacks_optimizers,
            optimizers=("adamqlr",),
            otherwise="runs of `adamqlr` that record learning rates above 0 in their first quarter",
        ),
    ),
    Claim(
        "ranks",
        "Untuned AdamQLR is among the better half of the optimizers, on average over datasets.",
        partial(ranks_high, subject="adamqlr_untuned"),
        partial(
            lacks_optimizers,
            optimizers=("adamqlr_untuned",),
            otherwise="another optimizer on a dataset of `adamqlr_untuned`",
        ),
    ),
    _varies(
        "large_batches",
        "AdamQLR's largest batch size is comparable with its best.",
        value_is_best,
        "batch_size",
        choose=max,
    ),
    _varies("initial_damping", "AdamQLR's initial damping matters little.", matters_little, "damping"),
    _varies("damping_factor", "AdamQLR's damping stepping factor matters little.", matters_little, "damping_increase"),
    _varies_more("adam_batch_size", "The batch size matters more to Adam than to AdamQLR.", "Adam", "batch_size"),
    _varies_more("kfac_batch_size", "The batch size matters more to K-FAC than to AdamQLR.", "K-FAC", "batch_size"),
    _varies_more(
        "kfac_initial_damping",
        "The initial damping matters more to K-FAC than to AdamQLR.",
        "K-FAC",
        "damping",
    ),
    _varies(
        "rescaling",
        "AdamQLR's learning rate as selected is comparable with its best rescaling.",
        value_is_best,
        "lr_rescaling",
        choose=lambda values: min(values, key=lambda v: abs(v - 1)),
    ),
)


def claims_of(config: StudyConfig) -> tuple[Claim, ...]:
    """Return the paper's claims, and those that a study's factorials are about."""
    own = heuristics_claims(config)
    heuristics = (_compares(key, statement, key, reference, Wanted.NO_WORSE) for key, reference, statement in own)
    return (*CLAIMS, *heuristics)
