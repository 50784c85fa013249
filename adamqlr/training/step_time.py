"""What a step takes a run that has the device to itself."""

from adamqlr.problems.problem import Problem
from adamqlr.training.limit import Limit
from adamqlr.training.run import Run, RunSpec
from adamqlr.training.schedule import RecordSchedule

_WARM_UP_STEPS = 20


def measure_step_seconds(problem: Problem, spec: RunSpec, seconds: float = 1.0) -> float:
    """Train one run for about ``seconds``, after some steps of warm-up, and return the mean seconds of its steps."""
    run = Run(problem, spec, RecordSchedule(every=1, growth=1e9), evaluations=())
    run.advance(Limit(steps=_WARM_UP_STEPS))
    if run.diverged:
        return run.seconds / run.step
    step, started = run.step, run.seconds
    run.advance(Limit(seconds=started + seconds))
    return (run.seconds - started) / (run.step - step)
