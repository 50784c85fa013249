"""What a step takes a run that has the device to itself."""

from adamqlr.problems.problem import Problem
from adamqlr.study.limit import Limit
from adamqlr.training.run import Run, RunSpec
from adamqlr.training.schedule import RecordSchedule

_WARM_UP_STEPS = 20


def measure_step_seconds(problem: Problem, spec: RunSpec, seconds: float = 1.0) -> float:
    """Return the mean seconds of the steps of one run, trained for about ``seconds`` after some steps of warm-up.

    A step takes its time whatever its numbers: a run that diverges is measured like any other.
    """
    run = Run(problem, spec, RecordSchedule(every=1, growth=1e9), evaluations=())
    while run.step < _WARM_UP_STEPS:
        run.advance(Limit(steps=_WARM_UP_STEPS))
        run.history.diverged = False
    step, started = run.step, run.seconds
    run.advance(Limit(seconds=started + seconds))
    return (run.seconds - started) / (run.step - step)
