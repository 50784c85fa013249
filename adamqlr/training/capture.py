"""Training steps captured and replayed: on CUDA as graphs, on a CPU as the list of their kernels."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Size, Tensor, nn

from adamqlr.optim.passes.perceptron import find_layers
from adamqlr.training.cpu_graph import CpuRecorder

logger = logging.getLogger(__name__)

# PyTorch asks for a few ordinary calls before a capture: libraries set themselves up in them.
_WARM_UP_CALLS = 3

Step = Callable[..., Any]


class Recorder(Protocol):
    """What turns a call into something that can be repeated."""

    def warm_up(self, step: Callable[[], Any]) -> Any:
        """Call ``step`` as it will be recorded; return its result."""
        ...

    def record(self, step: Callable[[], Any]) -> Callable[[], Any]:
        """Return a function that repeats ``step`` and returns its result; its first call is that of the recording.

        Raises:
            RuntimeError: The step does something that cannot be recorded.
        """
        ...


class CudaRecorder:
    """Records CUDA graphs, on a stream of their own."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()

    def warm_up(self, step: Callable[[], Any]) -> Any:
        """Call ``step`` on the recorder's stream."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = step()
        torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def record(self, step: Callable[[], Any]) -> Callable[[], Any]:
        """Capture ``step``; nothing is computed until the graph is replayed."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            result = step()

        def replay() -> Any:
            graph.replay()
            return result

        return replay


class CapturedStep:
    """A step that is captured after a few calls and replayed from then on, to the same numbers.

    What a replay returns is overwritten by the next. A step that cannot be captured goes on as it is.

    Args:
        step: A function of tensors that always reads and writes the same other tensors and never looks at the host.
        recorder: What captures.
        off_clock: Makes a context for what does not count as training: the capture.
    """

    def __init__(
        self, step: Step, recorder: Recorder, off_clock: Callable[[], AbstractContextManager[Any]] = nullcontext
    ) -> None:
        self._step, self._off_clock = step, off_clock
        self._recorder: Recorder | None = recorder
        self._calls: dict[tuple[Size, ...], int] = {}
        self._captured: dict[tuple[Size, ...], tuple[list[Tensor], Callable[[], Any]]] = {}

    def __call__(self, *tensors: Tensor) -> Any:
        """Take a step; tensors of other shapes are captured on their own."""
        if self._recorder is None:
            return self._step(*tensors)
        shapes = tuple(tensor.shape for tensor in tensors)
        calls = self._calls[shapes] = self._calls.get(shapes, 0) + 1
        if calls <= _WARM_UP_CALLS:
            return self._recorder.warm_up(lambda: self._step(*tensors))
        if shapes not in self._captured:
            with self._off_clock():
                self._capture(shapes, tensors)
            if self._recorder is None:
                return self._step(*tensors)
        inputs, replay = self._captured[shapes]
        for known, new in zip(inputs, tensors, strict=True):
            known.copy_(new)
        return replay()

    def _capture(self, shapes: tuple[Size, ...], tensors: tuple[Tensor, ...]) -> None:
        assert self._recorder is not None
        inputs = [tensor.clone() for tensor in tensors]
        try:
            self._captured[shapes] = inputs, self._recorder.record(lambda: self._step(*inputs))
        except RuntimeError as error:
            self._recorder = None
            logger.info("steps are not captured: %s", str(error).partition("\n")[0])


def fastest_step(
    step: Step,
    model: nn.Module,
    device: torch.device,
    capturable: bool,
    off_clock: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Step:
    """Return ``step``, captured where the optimizer allows it and where it is known to help.

    Args:
        step: As :class:`CapturedStep` wants it.
        model: What it trains.
        device: Where.
        capturable: Whether all steps run the same kernels.
        off_clock: As :class:`CapturedStep` takes it.
    """
    if capturable and device.type == "cuda":
        return CapturedStep(step, CudaRecorder(), off_clock)
    # Steps of other networks are long, and may draw random numbers where no kernel shows it.
    if capturable and device.type == "cpu" and find_layers(model) is not None:
        # The recording is a step, and counts as one.
        return CapturedStep(step, CpuRecorder())
    return step
