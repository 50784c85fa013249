"""What to do where PyTorch finds something that cannot be differentiated twice."""

from torch.utils.checkpoint import CheckpointError

_COMPILED = ("does not currently support double backward", "donated buffers")
_PLAIN = (
    "use plain operations instead, for attention attn_implementation='eager' or "
    "torch.nn.attention.sdpa_kernel(SDPBackend.MATH)"
)


class MissingDerivativesExplained:
    """A context that says what to do where an operation has no second derivatives, in a RuntimeError.

    Args:
        culprit: What is differentiated.
        cure: What to do.
    """

    def __init__(self, culprit: str = "a network", cure: str = _PLAIN) -> None:
        self._culprit, self._cure = culprit, cure

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Explain the error.

        Raises:
            RuntimeError: An operation has no second derivatives; the message says which.
        """
        if not isinstance(error, RuntimeError):
            return
        reason, cure = str(error).partition("\n")[0], self._cure
        if isinstance(error, CheckpointError):
            raise RuntimeError(
                "a checkpointed block is computed otherwise in the backward pass than in the forward pass, where its "
                "derivatives have to be cheap: give microbatch=… to save memory, and checkpoint nothing"
            ) from error
        if any(sign in reason for sign in _COMPILED):
            reason, cure = "a function is compiled", "call the function that torch.compile was given"
        elif "is not implemented" not in reason:
            return
        raise RuntimeError(
            f"curvature needs {self._culprit} that can be differentiated twice ({reason}): {cure}"
        ) from error
