"""What a model returns, as its loss takes it."""

from typing import Any

import torch
from torch import Tensor

FLOAT16_REFUSED = "float16 needs its loss scaled, which the step cannot do: use torch.autocast(…, dtype=torch.bfloat16)"


def checked_outputs(outputs: Any, dtype: torch.dtype) -> Tensor:
    """Return a model's outputs; those of autocast within the model in the parameters' precision.

    Autocast around the step does likewise: it computes losses in single precision.

    Args:
        outputs: What the model returned.
        dtype: The parameters' precision.

    Raises:
        TypeError: It is no tensor.
        ValueError: It is complex.
        RuntimeError: It is of float16, which needs the loss to be scaled.
    """
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"the model returned a {type(outputs).__name__}, not a tensor: give the optimizer what the loss takes, "
            "say forward=lambda model, inputs: model(**inputs).logits"
        )
    if outputs.dtype == dtype:
        return outputs
    if outputs.dtype == torch.float16:
        raise RuntimeError(FLOAT16_REFUSED)
    if outputs.is_complex():
        raise ValueError(
            f"the model's outputs are {outputs.dtype}: return real numbers, such as torch.view_as_real(outputs)"
        )
    is_of_model = outputs.dtype == torch.bfloat16 and not torch.is_autocast_enabled(outputs.device.type)
    return outputs.to(dtype) if is_of_model else outputs
