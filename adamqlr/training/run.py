"""Training runs: a network or several, an optimizer, a stream of batches and what they recorded."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adamqlr.optim.passes.given_loss import resolve_loss
from adamqlr.optim.passes.perceptron import PerceptronPack, members_of
from adamqlr.optim.passes.row_losses import row_loss
from adamqlr.problems.problem import Problem, initial_model
from adamqlr.problems.rows import Batches, Rows
from adamqlr.study.limit import Limit
from adamqlr.study.optimizers import OptimizerSpec
from adamqlr.training.capture import fastest_step
from adamqlr.training.clock import TrainingClock
from adamqlr.training.evaluation import MeanLoss, evaluate, evaluate_sets, minibatch_accuracies
from adamqlr.training.history import History
from adamqlr.training.lr_schedule import make_lr_schedule
from adamqlr.training.optimizers import make_optimizer, stack_options
from adamqlr.training.schedule import RecordSchedule
from adamqlr.training.updates import UpdateProbe

# The metrics that an optimizer's step may report under their own names.
STEP_METRICS = (
    "lr",
    "damping",
    "rho",
    "curvature",
    "momentum",
    "model_change",
    "true_change",
    "grad_dot_direction",
)
_TRAJECTORY_PARAMETERS = 3


@dataclass(frozen=True)
class RunSpec:
    """What decides a run's numbers, besides the problem.

    Attributes:
        optimizer: What the optimizer is.
        hyperparameters: Keyword arguments of the optimizer, ``batch_size``, and of a text ``length``.
        seed: The run's number among its like.
        study_seed: The study's seed.
        tuning: Whether this is a configuration being tuned; its random numbers differ from final runs'.
    """

    optimizer: OptimizerSpec
    hyperparameters: Mapping[str, Any]
    seed: int
    study_seed: int = 0
    tuning: bool = False

    def derived_seed(self, purpose: int) -> int:
        """Return an independent seed for one purpose."""
        sequence = np.random.SeedSequence([self.study_seed, int(self.tuning), self.seed, purpose])
        return int(sequence.generate_state(1, np.uint32)[0])


class Run:
    """A training run, or several side by side, that can go on in pieces, be saved and be taken up to the same numbers.

    Runs side by side are of one optimizer and batch size, and are those of separate runs but for rounding: each has its
    own initial network, order of rows, damping and divergence. As they share the device, their time is not measured:
    it is the steps taken times what a step takes a run that has the device to itself; likewise for evaluations.

    Args:
        problem: What is optimized, on the device that trains. Side by side: by a perceptron, with rows in memory and no
            augmentation.
        spec: Optimizer, hyperparameters and seed; several for runs side by side, which may differ in their seeds, and
            in what the optimizer allows its networks to differ in.
        schedule: Which steps are recorded.
        evaluations: Which sets are evaluated at each record: ``validation`` and ``test``, where the problem has them.
        step_seconds: Seconds that a step counts; None to measure them. Needed side by side.

    Attributes:
        histories: What has been recorded, one a run.
        step: Optimizer steps taken.
        step_seconds: As given.

    Raises:
        UserError: Runs side by side differ in what they must share.
    """

    def __init__(
        self,
        problem: Problem,
        spec: RunSpec | Sequence[RunSpec],
        schedule: RecordSchedule,
        evaluations: tuple[str, ...] = ("validation", "test"),
        step_seconds: float | None = None,
    ) -> None:
        specs = [spec] if isinstance(spec, RunSpec) else list(spec)
        options = [dict(one.hyperparameters) for one in specs]
        if problem.cut is not None:
            (length,) = {one.pop("length") for one in options}
            problem = problem.with_length(length)
        self._problem, self._schedule, self.step_seconds = problem, schedule, step_seconds
        self._evaluated = {name: rows for name in evaluations if (rows := getattr(problem, name)) is not None}
        models = [initial_model(problem, one.derived_seed(0), tuning=one.tuning).train() for one in specs]
        torch.manual_seed(specs[0].derived_seed(2))
        loss = resolve_loss(problem.loss)
        batch_size, *others = {problem.rows_of_batch(one.pop("batch_size")) for one in options}
        assert not others
        self._model: nn.Module
        self._loss: MeanLoss = loss
        self._evaluation_seconds: float | None = None
        if isinstance(spec, RunSpec):
            self._model = models[0]
            self._batches = problem.batches(batch_size, spec.derived_seed(1))
        else:
            assert step_seconds is not None
            assert isinstance(problem.train, Rows)
            rows_loss = row_loss(loss)
            assert rows_loss is not None
            # Of one network alone; the first of two warms up.
            _, self._evaluation_seconds = [self._evaluate(models[0], loss) for _ in range(2)][-1]
            self._model = PerceptronPack([model for model in models if isinstance(model, nn.Sequential)])
            self._loss = rows_loss.value
            self._batches = Batches(problem.train, batch_size, [one.derived_seed(1) for one in specs])
        optimizer = specs[0].optimizer
        assert all(one.optimizer == optimizer for one in specs)
        self._optimizer = make_optimizer(optimizer, self._model, loss, stack_options(optimizer, options))
        self._lr_schedule = make_lr_schedule(optimizer, self._optimizer, self._batches.steps_per_epoch)
        self._probe = UpdateProbe(self._model, loss)
        self._clock = TrainingClock(problem.device)
        self._dropped: set[int] = set()
        self._prepare_steps()
        self.step = 0
        self.histories = [History(seed=one.seed) for one in specs]
        self._record({})

    def _prepare_steps(self) -> None:
        """Bind the step to the optimizer's state as it is now."""
        optimizer, gather = self._optimizer, self._batches.gather
        # A replay would go on with the learning rate that it was captured with.
        capturable = self._lr_schedule is None and getattr(optimizer, "capturable", False)
        device, off_clock = self._problem.device, self._clock.paused
        step = fastest_step(
            lambda *chosen: optimizer.step(*gather(*chosen)), self._model, device, capturable, off_clock
        )
        self._take_step = self._lr_schedule.following(step) if self._lr_schedule else step

    @property
    def history(self) -> History:
        """What the only run, or the first of several, has recorded."""
        return self.histories[0]

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training rows."""
        return self._batches.steps_per_epoch

    @property
    def seconds(self) -> float:
        """Training seconds of a run so far."""
        return self._clock.read() if self.step_seconds is None else self.step * self.step_seconds

    def off_clock(self) -> AbstractContextManager[None]:
        """Return a context that takes no training seconds."""
        return self._clock.paused()

    @property
    def diverged(self) -> bool:
        """Whether all runs but dropped ones have ended because their numbers are no longer finite."""
        return all(history.diverged or member in self._dropped for member, history in enumerate(self.histories))

    def drop(self, member: int) -> None:
        """Record a run no longer. It goes on unseen, as leaving it out would change how the others' sums round."""
        self._dropped.add(member)

    def advance(self, limit: Limit, between_steps: Callable[[], None] = lambda: None) -> None:
        """Train up to ``limit``; the last step is recorded, whatever the schedule says.

        Args:
            limit: Where to stop.
            between_steps: Called after every step that is not the last, with the clock running: what takes time is to
                do so :meth:`off_clock`.
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
            batch = self._batches.gather(*selection)
            accuracies = [math.nan] * len(self.histories)
            if self._problem.has_accuracy:
                accuracies = minibatch_accuracies(self._model, *batch)
            self._probe.remember()
        info = self._take_step(*selection)
        self.step += 1
        with self._clock.paused():
            metrics = {name: _listed(getattr(info, name)) for name in STEP_METRICS if hasattr(info, name)}
            gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
            metrics["grad_norm"] = _listed(torch.linalg.vector_norm(self._joined(gradients), dim=-1))
            metrics["update_norm"], metrics["sharpness"] = map(_listed, self._probe.measure(*batch))
            metrics["train_loss"], metrics["train_accuracy"] = _listed(info.loss), accuracies
            self._record(metrics)

    def _record(self, metrics: dict[str, list[float]]) -> None:
        found, seconds = self._evaluate(self._model, self._loss)
        metrics |= found
        seconds = seconds if self._evaluation_seconds is None else self._evaluation_seconds
        parameters = self._flatten()
        shown = self._problem.test is None and parameters.numel() <= _TRAJECTORY_PARAMETERS
        trajectory = parameters.tolist() if shown else None
        for member, history in enumerate(self.histories):
            if history.diverged or member in self._dropped:
                continue
            values = {name: numbers[member] for name, numbers in metrics.items()}
            history.append(self.step, self.seconds, values, trajectory, seconds)
            if self.step > 0:
                history.diverged = not (math.isfinite(values["train_loss"]) and math.isfinite(values["update_norm"]))

    def _evaluate(self, model: nn.Module, loss: MeanLoss) -> tuple[dict[str, list[float]], float]:
        """Return losses and accuracies of the evaluated sets, one number a network, and the seconds that it took."""
        clock = TrainingClock(self._problem.device)
        with clock.running():
            metrics = evaluate_sets(model, loss, self._evaluated, self._problem.has_accuracy)
        return metrics, clock.read()

    def _flatten(self) -> Tensor:
        return self._joined([parameter.detach() for parameter in self._model.parameters()])

    def _joined(self, tensors: list[Tensor]) -> Tensor:
        """Return tensors of parameters' shapes as one of shape (*members, n)."""
        leading = len(members_of(self._model))
        return torch.cat([tensor.reshape(*tensor.shape[:leading], -1) for tensor in tensors], dim=-1)

    def objectives(self, name: str) -> list[float]:
        """Return each run's whole-set loss ``train_loss`` or ``validation_loss`` now; +inf after divergence."""
        if self.diverged:
            return [math.inf] * len(self.histories)
        rows = getattr(self._problem, name.removesuffix("_loss"))
        losses, _ = evaluate(self._model, self._loss, rows, with_accuracy=False)
        return [
            loss if math.isfinite(loss) and not history.diverged else math.inf
            for loss, history in zip(losses, self.histories, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on: tensors and plain Python values."""
        with self.off_clock():
            state = {
                "step": self.step,
                "seconds": self._clock.read(),
                "histories": [history.state_dict() for history in self.histories],
                "model": self._model.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "batches": self._batches.state_dict(),
                "lr_schedule": self._lr_schedule and self._lr_schedule.state_dict(),
                "rng": torch.get_rng_state(),
            }
            if self._problem.device.type == "cuda":
                state["cuda_rng"] = [torch.cuda.get_rng_state(self._problem.device)]
            return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state, of version 0.1 too; the run then continues to the numbers it would have had."""
        self.step = state["step"]
        self._clock = TrainingClock(self._problem.device, state.get("seconds", 0.0))
        saved = state["histories"] if "histories" in state else [state["history"]]
        self.histories = [History.from_state_dict(history) for history in saved]
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._batches.load_state_dict(state["batches"])
        if self._lr_schedule is not None:
            self._lr_schedule.load_state_dict(state["lr_schedule"])
        self._prepare_steps()
        if "rng" in state:
            torch.set_rng_state(state["rng"])
        if "cuda_rng" in state and self._problem.device.type == "cuda":
            # Older checkpoints have those of all devices.
            torch.cuda.set_rng_state(state["cuda_rng"][0], self._problem.device)


def _listed(numbers: Tensor) -> list[float]:
    """Return one number a run."""
    return numbers.reshape(-1).tolist()
