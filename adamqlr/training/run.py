"""One training run: a network, an optimizer, a stream of batches and what they recorded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adamqlr.optim.passes.losses import resolve_loss
from adamqlr.optim.passes.replay import preserved_buffers
from adamqlr.problems.problem import Problem, initial_model
from adamqlr.study.optimizers import make_optimizer
from adamqlr.training.capture import fastest_step
from adamqlr.training.clock import TrainingClock
from adamqlr.training.evaluation import count_correct, evaluate
from adamqlr.training.history import History
from adamqlr.training.limit import Limit
from adamqlr.training.schedule import RecordSchedule

# The metrics that an optimizer's step may report under their own names.
STEP_METRICS = ("lr", "damping", "rho", "curvature")
_TRAJECTORY_PARAMETERS = 3


@dataclass(frozen=True)
class RunSpec:
    """What decides a run's numbers, besides the problem.

    Attributes:
        optimizer: A registered name.
        hyperparameters: Keyword arguments of the optimizer, and ``batch_size``.
        seed: The run's number among its like.
        study_seed: The study's seed.
        tuning: Whether this is a configuration being tuned; its random numbers differ from final runs'.
    """

    optimizer: str
    hyperparameters: Mapping[str, Any]
    seed: int
    study_seed: int = 0
    tuning: bool = False

    def derived_seed(self, purpose: int) -> int:
        """Return an independent seed for one purpose."""
        sequence = np.random.SeedSequence([self.study_seed, int(self.tuning), self.seed, purpose])
        return int(sequence.generate_state(1, np.uint32)[0])


class Run:
    """A training run that can go on in pieces, be saved and be taken up again to the same numbers.

    Args:
        problem: What is optimized, on the device that trains.
        spec: Optimizer, hyperparameters and seed.
        schedule: Which steps are recorded.
        evaluations: Which sets are evaluated at each record: ``validation`` and ``test``, where the problem has them.

    Attributes:
        history: What has been recorded.
        step: Optimizer steps taken.
    """

    def __init__(
        self,
        problem: Problem,
        spec: RunSpec,
        schedule: RecordSchedule,
        evaluations: tuple[str, ...] = ("validation", "test"),
    ) -> None:
        self._problem, self._spec, self._schedule = problem, spec, schedule
        self._evaluated = {name: rows for name in evaluations if (rows := getattr(problem, name)) is not None}
        self._model = initial_model(problem, spec.derived_seed(0), tuning=spec.tuning).train()
        torch.manual_seed(spec.derived_seed(2))
        self._loss = resolve_loss(problem.loss)
        options = dict(spec.hyperparameters)
        batch_size = options.pop("batch_size")
        self._batches = problem.batches(batch_size, spec.derived_seed(1))
        self._optimizer = make_optimizer(spec.optimizer, self._model, self._loss, options)
        self._clock = TrainingClock(problem.device)
        self._prepare_steps()
        self.step = 0
        self.history = History(seed=spec.seed)
        self._record({})

    def _prepare_steps(self) -> None:
        """Bind the step to the optimizer's state as it is now."""
        optimizer, gather = self._optimizer, self._batches.gather
        capturable = getattr(optimizer, "capturable", True)
        self._take_step = fastest_step(
            lambda *selection: optimizer.step(*gather(*selection)),
            self._problem.device,
            capturable,
            self._clock.paused,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training rows."""
        return self._batches.steps_per_epoch

    @property
    def seconds(self) -> float:
        """Training seconds so far."""
        return self._clock.read()

    @property
    def diverged(self) -> bool:
        """Whether the run has ended because its numbers are no longer finite."""
        return self.history.diverged

    def advance(self, limit: Limit, between_steps: Callable[[], None] = lambda: None) -> None:
        """Train up to ``limit``; the last step is recorded, whatever the schedule says.

        Args:
            limit: Where to stop.
            between_steps: Called after every step that is not the last, with the clock running.
        """
        if self.diverged or self._is_past(limit):
            return
        with self._clock.running():
            due = self._schedule.next_after(self.step)
            while True:
                last = self._is_last(limit)
                if last or self.step + 1 == due:
                    self._recorded_step()
                    due = self._schedule.next_after(self.step)
                else:
                    self._take_step(*self._batches.next_selection(self._clock.paused))
                    self.step += 1
                if last or self.diverged:
                    return
                between_steps()

    def fraction_of(self, limit: Limit) -> float:
        """Return how much of the way to ``limit`` is done, from 0 to 1."""
        steps = self.step / limit.steps if limit.steps else 0.0
        seconds = self.seconds / limit.seconds if limit.seconds else 0.0
        return 1.0 if self.diverged else min(1.0, max(steps, seconds))

    def _is_past(self, limit: Limit) -> bool:
        return (limit.steps is not None and self.step >= limit.steps) or (
            limit.seconds is not None and self.seconds >= limit.seconds
        )

    def _is_last(self, limit: Limit) -> bool:
        """Tell whether the next step is the last: it reaches the step limit, or starts when time is up."""
        return (limit.steps is not None and self.step + 1 >= limit.steps) or (
            limit.seconds is not None and self.seconds >= limit.seconds
        )

    def _recorded_step(self) -> None:
        selection = self._batches.next_selection(self._clock.paused)
        with self._clock.paused():
            before = self._flatten()
            accuracy = self._minibatch_accuracy(*self._batches.gather(*selection))
        info = self._take_step(*selection)
        self.step += 1
        with self._clock.paused():
            metrics = {name: float(getattr(info, name)) for name in STEP_METRICS if hasattr(info, name)}
            gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
            metrics["grad_norm"] = float(torch.nn.utils.get_total_norm(gradients))
            metrics["update_norm"] = float(torch.linalg.vector_norm(self._flatten() - before))
            metrics["train_loss"], metrics["train_accuracy"] = float(info.loss), accuracy
            finite = np.isfinite(metrics["train_loss"]) and np.isfinite(metrics["update_norm"])
            self.history.diverged = not finite
            self._record(metrics)

    def _record(self, metrics: dict[str, float]) -> None:
        for name, rows in self._evaluated.items():
            loss, accuracy = evaluate(self._model, self._loss, rows, self._problem.has_accuracy)
            metrics[f"{name}_loss"], metrics[f"{name}_accuracy"] = loss, accuracy
        parameters = self._flatten()
        trajectory = parameters.tolist() if len(parameters) <= _TRAJECTORY_PARAMETERS else None
        self.history.append(self.step, self._clock.read(), metrics, trajectory)

    def _flatten(self) -> Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self._model.parameters()])

    @torch.no_grad()
    def _minibatch_accuracy(self, inputs: Tensor, targets: Tensor) -> float:
        if not self._problem.has_accuracy:
            return float("nan")
        with preserved_buffers(self._model):
            return float(count_correct(self._model(inputs), targets)) / targets.numel()

    def objective(self, name: str) -> float:
        """Return the whole-set loss ``train_loss`` or ``validation_loss`` now; +inf after divergence."""
        rows = getattr(self._problem, name.removesuffix("_loss"))
        if self.diverged:
            return float("inf")
        loss, _ = evaluate(self._model, self._loss, rows, with_accuracy=False)
        return loss if np.isfinite(loss) else float("inf")

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on: tensors and plain Python values."""
        with self._clock.paused():
            state = {
                "step": self.step,
                "seconds": self._clock.read(),
                "history": self.history.state_dict(),
                "model": self._model.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "batches": self._batches.state_dict(),
                "rng": torch.get_rng_state(),
            }
            if torch.cuda.is_available():
                state["cuda_rng"] = torch.cuda.get_rng_state_all()
            return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state; the run then continues to the numbers it would have had."""
        self.step = state["step"]
        self._clock = TrainingClock(self._problem.device, state["seconds"])
        self.history = History.from_state_dict(state["history"])
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._batches.load_state_dict(state["batches"])
        self._prepare_steps()
        torch.set_rng_state(state["rng"])
        if "cuda_rng" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda_rng"])
