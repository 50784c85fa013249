"""GPT-2 as a module from tokens to logits."""

from typing import Any

from torch import Tensor, nn

from adamqlr.extras import extras_named
from adamqlr.study.settings import TransformerConfig


class Gpt2(nn.Module):
    """Transformers' GPT-2 with fresh weights, its embedding tied to its output layer.

    There is no dropout: the quadratic model of a second-order optimizer describes a deterministic loss, and it is
    compared with the loss of the same network after the step. Attention is of PyTorch's plain operations (``eager``),
    which can be differentiated twice.

    Args:
        size: Its size.
        vocabulary: Number of tokens.

    Raises:
        MissingExtra: The package transformers is not installed.
    """

    def __init__(self, size: TransformerConfig, vocabulary: int) -> None:
        super().__init__()
        with extras_named():
            from transformers import GPT2Config, GPT2LMHeadModel
        options: dict[str, Any] = {
            "vocab_size": vocabulary,
            "n_positions": size.length,
            "n_embd": size.width,
            "n_layer": size.layers,
            "n_head": size.heads,
            **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
            **dict.fromkeys(("bos_token_id", "eos_token_id"), None),
            "use_cache": False,
            "attn_implementation": "eager",
        }
        self.network = GPT2LMHeadModel(GPT2Config(**options))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits of the next tokens, (rows, vocabulary, length), for tokens (rows, length)."""
        logits: Tensor = self.network(tokens).logits
        return logits.transpose(1, 2)
