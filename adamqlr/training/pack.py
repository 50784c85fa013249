"""Runs side by side in one network of networks, step by step together."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adamqlr.optim.passes.losses import resolve_loss
from adamqlr.optim.passes.perceptron import PerceptronPack
from adamqlr.optim.passes.row_losses import row_loss
from adamqlr.problems.packed_batches import PackedBatches
from adamqlr.problems.problem import Problem, Rows, initial_model
from adamqlr.study.optimizers import make_optimizer, stack_options
from adamqlr.training.capture import fastest_step
from adamqlr.training.evaluation import evaluate_pack
from adamqlr.training.history import History
from adamqlr.training.limit import Limit
from adamqlr.training.run import STEP_METRICS, RunSpec
from adamqlr.training.schedule import RecordSchedule


class RunPack:
    """Runs of one optimizer and batch size, to the numbers of separate ones but for rounding.

    Every run has its own initial network, order of rows, damping and divergence. As they share the device, their time
    is not measured: it is the steps taken times what a step takes a run that has the device to itself.

    Args:
        problem: What is optimized, by a perceptron, with rows in memory and no augmentation.
        specs: The runs; they may differ in their seeds, and in what the optimizer allows its networks to differ in.
        schedule: Which steps are recorded.
        step_seconds: Seconds a step takes a single run.
        evaluations: Which sets are evaluated at each record, where the problem has them.

    Attributes:
        histories: What has been recorded, one a run.
        step: Optimizer steps taken.
        step_seconds: As given.

    Raises:
        UserError: The runs differ in more.
    """

    def __init__(
        self,
        problem: Problem,
        specs: Sequence[RunSpec],
        schedule: RecordSchedule,
        step_seconds: float,
        evaluations: tuple[str, ...] = ("validation", "test"),
    ) -> None:
        self._problem, self._schedule, self.step_seconds = problem, schedule, step_seconds
        self._evaluated = {name: rows for name in evaluations if (rows := getattr(problem, name)) is not None}
        models = [initial_model(problem, spec.derived_seed(0), tuning=spec.tuning) for spec in specs]
        self._pack = PerceptronPack([model for model in models if isinstance(model, nn.Sequential)])
        loss = resolve_loss(problem.loss)
        rows_loss = row_loss(loss)
        assert rows_loss is not None
        assert isinstance(problem.train, Rows)
        self._loss = rows_loss
        options = [dict(spec.hyperparameters) for spec in specs]
        # Batches of more rows than there are are all the same.
        (batch_size,) = {min(one.pop("batch_size"), len(problem.train)) for one in options}
        self._batches = PackedBatches(problem.train, batch_size, [spec.derived_seed(1) for spec in specs])
        (optimizer,) = {spec.optimizer for spec in specs}
        self._optimizer = make_optimizer(optimizer, self._pack, loss, stack_options(optimizer, options))
        self._dropped: set[int] = set()
        self._prepare_steps()
        self.step = 0
        self.histories = [History(seed=spec.seed) for spec in specs]
        self._record({})

    def _prepare_steps(self) -> None:
        """Bind the step to the optimizer's state as it is now."""
        optimizer, gather = self._optimizer, self._batches.gather
        self._take_step = fastest_step(
            lambda *selection: optimizer.step(*gather(*selection)), self._problem.device, capturable=True
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training rows."""
        return self._batches.steps_per_epoch

    @property
    def diverged(self) -> bool:
        """Whether all runs but dropped ones have ended because their numbers are no longer finite."""
        return all(history.diverged or member in self._dropped for member, history in enumerate(self.histories))

    def drop(self, member: int) -> None:
        """Record a run no longer. It goes on unseen, as leaving it out would change how the others' sums round."""
        self._dropped.add(member)

    def advance(self, limit: Limit, between_steps: Callable[[], None] = lambda: None) -> None:
        """Train up to the step ``limit``; the last step is recorded, whatever the schedule says.

        Args:
            limit: Where to stop: a number of steps.
            between_steps: Called after every step that is not the last.
        """
        assert limit.steps is not None
        due = self._schedule.next_after(self.step)
        while self.step < limit.steps and not self.diverged:
            last = self.step + 1 == limit.steps
            if last or self.step + 1 == due:
                self._recorded_step()
                due = self._schedule.next_after(self.step)
            else:
                self._take_step(*self._batches.next_selection())
                self.step += 1
            if not last:
                between_steps()

    @torch.no_grad()
    def _recorded_step(self) -> None:
        selection = self._batches.next_selection()
        before, accuracies = self._flatten(), self._minibatch_accuracies(*self._batches.gather(*selection))
        info = self._take_step(*selection)
        self.step += 1
        metrics = {name: getattr(info, name).tolist() for name in STEP_METRICS if hasattr(info, name)}
        gradients = torch.cat([p.grad.flatten(1) for p in self._pack.parameters() if p.grad is not None], dim=1)
        metrics["grad_norm"] = torch.linalg.vector_norm(gradients, dim=1).tolist()
        metrics["update_norm"] = torch.linalg.vector_norm(self._flatten() - before, dim=1).tolist()
        metrics["train_loss"], metrics["train_accuracy"] = info.loss.tolist(), accuracies
        self._record(metrics)

    def _record(self, metrics: dict[str, list[float]]) -> None:
        for name, rows in self._evaluated.items():
            found = evaluate_pack(self._pack, self._loss, rows, self._problem.has_accuracy)
            metrics[f"{name}_loss"], metrics[f"{name}_accuracy"] = found
        for member, history in enumerate(self.histories):
            if history.diverged or member in self._dropped:
                continue
            values = {name: numbers[member] for name, numbers in metrics.items()}
            history.append(self.step, self.step * self.step_seconds, values)
            if self.step > 0:
                history.diverged = not (math.isfinite(values["train_loss"]) and math.isfinite(values["update_norm"]))

    def objectives(self, name: str) -> list[float]:
        """Return every run's whole-set loss ``train_loss`` or ``validation_loss`` now; +inf after divergence."""
        rows = getattr(self._problem, name.removesuffix("_loss"))
        losses, _ = evaluate_pack(self._pack, self._loss, rows, with_accuracy=False)
        return [
            loss if math.isfinite(loss) and not history.diverged else math.inf
            for loss, history in zip(losses, self.histories, strict=True)
        ]

    def _flatten(self) -> Tensor:
        return torch.cat([parameter.detach().flatten(1) for parameter in self._pack.parameters()], dim=1)

    def _minibatch_accuracies(self, inputs: Tensor, targets: Tensor) -> list[float]:
        if not self._problem.has_accuracy:
            return [float("nan")] * self._pack.members
        return (self._pack(inputs).argmax(dim=-1) == targets).double().mean(dim=-1).tolist()

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on: tensors and plain Python values."""
        return {
            "step": self.step,
            "histories": [history.state_dict() for history in self.histories],
            "model": self._pack.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "batches": self._batches.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state; the runs then continue to the numbers they would have had."""
        self.step = state["step"]
        self.histories = [History.from_state_dict(saved) for saved in state["histories"]]
        self._pack.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._batches.load_state_dict(state["batches"])
        self._prepare_steps()
