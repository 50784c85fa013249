"""What a step computes with numbers: the weights of its directions, and then what it has found."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from adamqlr.optim.heuristics import DampingRule, QuadraticModel
from adamqlr.optim.numbers import Number, is_zero, numbers_like, quotient, where


class StepArithmetic:
    """Computes the heuristics' numbers, by functions of numbers (:class:`adamqlr.optim.numbers.Numbers`).

    Args:
        damping: λ, which says how numbers are computed with.
        damps_model: Whether ρ is that of the model with its damping.
        nan_is_poor: As for :class:`~adamqlr.optim.heuristics.DampingRule`.
    """

    def __init__(self, damping: Tensor, damps_model: bool, nan_is_poor: bool) -> None:
        self._like, self._damps_model, self._nan_is_poor = damping, damps_model, nan_is_poor
        self._numbers, self._zero = numbers_like(damping), torch.zeros_like(damping)
        self._nothing = self._numbers.minus_nothing(damping)
        self._rounding = 8 * torch.finfo(damping.dtype).eps
        self._rule_options: tuple[Any, ...] = ()

    def minimizer(self, forms: Sequence[Tensor], lr: Number | None, momentum: Number | None) -> Sequence[Tensor]:
        """Return w, good until the next call.

        Args:
            forms: What :func:`adamqlr.optim.heuristics.quadratic_forms` returned.
            lr: Fixed α, or None.
            momentum: Fixed w₂, or None.
        """
        return self._numbers.call(partial(self._minimizer, lr, momentum), *forms)

    def limited(self, weights: Sequence[Tensor], first: Tensor) -> Sequence[Tensor]:
        """Return w as a whole as much shorter as a limit or a schedule makes w₁; likewise.

        Args:
            weights: w, both of which the model chose.
            first: What is left of w₁.
        """
        return self._numbers.call(self._limited, *weights, first)

    def momentum_beside(self, first: Tensor, forms: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return w with the w₂ that is best for a given w₁; likewise."""
        return self._numbers.call(self._beside, first, *forms)

    def judge(
        self,
        loss: Tensor,
        after: Tensor,
        weights: Sequence[Tensor],
        forms: Sequence[Tensor],
        options: Mapping[str, Any],
        unresolved: Tensor | None = None,
    ) -> Sequence[Tensor]:
        """Return what a :class:`~adamqlr.optim.info.QLRInfo` says, from ``lr`` to ``momentum``.

        Args:
            loss: L(θ).
            after: L(θ + V w).
            weights: w.
            forms: As above.
            options: How λ is adapted.
            unresolved: As for :class:`~adamqlr.optim.heuristics.DampingRule`.
        """
        found = partial(self._judge, options, len(weights), unresolved is not None)
        last = [] if unresolved is None else [unresolved]
        return self._numbers.call(found, loss, after, *weights, *forms, *last, keep=True)

    def _minimizer(self, lr: Number | None, momentum: Number | None, *forms: Number) -> Sequence[Number]:
        return QuadraticModel(forms).minimizer(self._nothing, lr, momentum, self._rounding)

    def _beside(self, first: Number, *forms: Number) -> Sequence[Number]:
        return QuadraticModel(forms).minimizer(self._nothing, -first)

    def _limited(self, w1: Number, w2: Number, first: Number) -> Sequence[Number]:
        return [first, w2 * where(is_zero(w1), 0.0, quotient(first, w1))]

    def _judge(
        self, options: Mapping[str, Any], count: int, is_low: bool, loss: Number, after: Number, *numbers: Number
    ) -> tuple[Number, ...]:
        unresolved = numbers[-1] if is_low else None
        numbers = numbers[:-1] if is_low else numbers
        weights, model = numbers[:count], QuadraticModel(numbers[count:])
        model_change, true_change = model.change(weights, self._damps_model), after - loss
        rho, adapted = quotient(true_change, model_change), model.damping
        if options["adapt_damping"]:
            adapted = self._rule(options)(model.damping, rho, loss, true_change, unresolved)
        elif isinstance(adapted, Tensor):
            adapted = adapted.clone()
        none = self._zero if isinstance(loss, Tensor) else 0.0
        momentum = weights[1] if count > 1 else none
        return -weights[0], model.damped[0][0], model.slopes[0], adapted, rho, model_change, true_change, momentum

    def _rule(self, options: Mapping[str, Any]) -> DampingRule:
        """Return the damping rule, made anew where its options have changed."""
        names = ("damping_decrease", "damping_increase", "min_damping", "max_damping")
        wanted = (*[options[name] for name in names], options["resolution"])
        if wanted != self._rule_options:
            decrease, increase, lowest, highest, resolution = wanted
            self._current_rule = DampingRule(
                decrease, increase, lowest, highest, self._like, self._nan_is_poor, resolution
            )
            self._rule_options = wanted
        return self._current_rule
