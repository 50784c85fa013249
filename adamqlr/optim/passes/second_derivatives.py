"""What to do where PyTorch finds something that cannot be differentiated twice."""

from collections.abc import Iterator
from contextlib import contextmanager

_COMPILED = ("does not currently support double backward", "donated buffers")
_PLAIN = (
    "use plain operations instead, for attention attn_implementation='eager' or "
    "torch.nn.attention.sdpa_kernel(SDPBackend.MATH)"
)


@contextmanager
def missing_derivatives_explained(culprit: str = "a network", cure: str = _PLAIN) -> Iterator[None]:
    """Say what to do where an operation has no second derivatives.

    Args:
        culprit: What is differentiated.
        cure: What to do.

    Raises:
        RuntimeError: An operation has none; the message says which.
    """
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        if any(sign in reason for sign in _COMPILED):
            reason, cure = "a function is compiled", "call the function that torch.compile was given"
        elif "is not implemented" not in reason:
            raise
        raise RuntimeError(f"curvature needs {culprit} that can be differentiated twice ({reason}): {cure}") from error
