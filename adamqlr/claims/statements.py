"""The claims (paper, abstract and sections 4 and 5), each a statement and a function that weighs it.

A new claim is one entry of :data:`CLAIMS`; most need nothing but a function of :mod:`adamqlr.claims.evidence`.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from adamqlr.claims.course import generalizes_worse, learning_rate_grows, overfits, ranks_high
from adamqlr.claims.evidence import (
    Evidence,
    against_best_baseline,
    effect_varies,
    matters_little,
    matters_more,
    pairwise,
    value_is_best,
)
from adamqlr.claims.heuristics import heuristics_claims
from adamqlr.results.pairs import Study
from adamqlr.study.config import StudyConfig


class Claim(NamedTuple):
    """One claim.

    Attributes:
        key: Its name.
        statement: What is claimed, in one sentence.
        weigh: Yields the evidence that a study holds.
    """

    key: str
    statement: str
    weigh: Callable[[Study], Iterator[Evidence]]


CLAIMS = (
    Claim(
        "untuned_adamqlr",
        "Untuned AdamQLR is comparable with the best tuned baseline, performance against runtime.",
        partial(against_best_baseline, subject="adamqlr_untuned"),
    ),
    Claim(
        "tuned_adamqlr",
        "Tuned AdamQLR is comparable with tuned Adam.",
        partial(pairwise, subject="adamqlr", reference="adam", with_margin=True),
    ),
    Claim(
        "heuristics_vary",
        "K-FAC's heuristics on Adam's direction help on some datasets and harm on others.",
        partial(effect_varies, subject="adamqlr", reference="adam"),
    ),
    Claim(
        "untuned_pair",
        "Without tuning, AdamQLR performs better than Adam.",
        partial(pairwise, subject="adamqlr_untuned", reference="adam_untuned"),
    ),
    Claim(
        "adaptive_kfac",
        "Adapting learning rate, momentum and damping improves K-FAC.",
        partial(pairwise, subject="kfac", reference="kfac_unadaptive"),
    ),
    Claim("damping", "Damping improves AdamQLR.", partial(pairwise, subject="adamqlr", reference="adamqlr_undamped")),
    Claim(
        "curvature",
        "The Fisher matrix serves AdamQLR at least as well as the Hessian.",
        partial(pairwise, subject="adamqlr", reference="adamqlr_hessian", with_margin=True),
    ),
    Claim(
        "tuned_epsilon",
        "AdamQLR is comparable with Adam whose ε is tuned too.",
        partial(pairwise, subject="adamqlr", reference="adam_eps", with_margin=True),
    ),
    Claim(
        "hypergradients",
        "AdamQLR is comparable with SGD whose learning rate follows hypergradients.",
        partial(pairwise, subject="adamqlr", reference="baydin_sgd", with_margin=True),
    ),
    Claim("kfac_overfits", "K-FAC overfits.", partial(overfits, subject="kfac")),
    Claim(
        "kfac_generalization",
        "K-FAC's generalization gap is at least AdamQLR's.",
        partial(generalizes_worse, subject="kfac", reference="adamqlr"),
    ),
    Claim(
        "growing_learning_rate",
        "The learning rate that AdamQLR selects grows during training.",
        partial(learning_rate_grows, subject="adamqlr"),
    ),
    Claim(
        "ranks",
        "Untuned AdamQLR is among the better half of the optimizers, on average over datasets.",
        partial(ranks_high, subject="adamqlr_untuned"),
    ),
    Claim(
        "large_batches",
        "AdamQLR's largest batch size is comparable with its best.",
        partial(value_is_best, parameter="batch_size", choose=max),
    ),
    Claim(
        "initial_damping",
        "AdamQLR's initial damping matters little.",
        partial(matters_little, parameter="damping"),
    ),
    Claim(
        "damping_factor",
        "AdamQLR's damping stepping factor matters little.",
        partial(matters_little, parameter="damping_increase"),
    ),
    Claim(
        "adam_batch_size",
        "The batch size matters more to Adam than to AdamQLR.",
        partial(matters_more, family="Adam", parameter="batch_size"),
    ),
    Claim(
        "kfac_batch_size",
        "The batch size matters more to K-FAC than to AdamQLR.",
        partial(matters_more, family="K-FAC", parameter="batch_size"),
    ),
    Claim(
        "kfac_initial_damping",
        "The initial damping matters more to K-FAC than to AdamQLR.",
        partial(matters_more, family="K-FAC", parameter="damping"),
    ),
    Claim(
        "rescaling",
        "AdamQLR's learning rate as selected is comparable with its best rescaling.",
        partial(value_is_best, parameter="lr_rescaling", choose=lambda values: min(values, key=lambda v: abs(v - 1))),
    ),
)


def claims_of(config: StudyConfig) -> tuple[Claim, ...]:
    """Return the paper's claims, and those that a study's factorials are about."""
    return (*CLAIMS, *(Claim(*claim) for claim in heuristics_claims(config)))
