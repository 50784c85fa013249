"""How many positions a case has in a layer, as several processes see it."""

import struct
from collections.abc import Sequence
from zlib import crc32

import torch
from torch import Tensor

from adamqlr.optim.directions.kronecker_blocks import KroneckerBlock

_BITS = 32


class PositionsOfProcesses:
    """Sees that each layer has as many positions a case in all processes, by numbers in a message that is sent anyway.

    Each process adds a 1, and bits that stand for its number of positions: they agree where each bit adds up to nothing
    or to the number of processes. Small whole numbers add up without rounding. On a device, which would be waited for,
    processes look at steps 1, 2, 4, 8 and so on.
    """

    def __init__(self) -> None:
        self._steps, self._looks = 0, False
        self._numbers: Tensor | None = None

    def numbers(self, blocks: Sequence[KroneckerBlock], like: Tensor) -> Tensor:
        """Return what is to be added up.

        Args:
            blocks: Those of the layers.
            like: A tensor of the message's dtype and device.
        """
        self._steps += 1
        is_due = self._steps & (self._steps - 1) == 0
        self._looks = not like.is_cuda or (is_due and not torch.cuda.is_current_stream_capturing())
        if self._looks or self._numbers is None or len(self._numbers) != len(blocks):
            self._numbers = like.new_tensor([_bits_of(block.positions) for block in blocks])
        return self._numbers.clone()

    def check(self, blocks: Sequence[KroneckerBlock], sums: Tensor) -> None:
        """Look at what the numbers have added up to.

        Raises:
            ValueError: A layer has other numbers of positions in some processes, as all of them notice.
        """
        if not self._looks:
            return
        for block, (processes, *bits) in zip(blocks, sums.tolist(), strict=True):
            if any(bit not in (0, processes) for bit in bits):
                raise ValueError(
                    f"processes show {block.module} different numbers of positions a case, of which K-FAC takes no "
                    "mean: pad their parts of a minibatch to one length, or use AdamQLR"
                )


def _bits_of(positions: float | None) -> list[float]:
    number = crc32(struct.pack("d", positions or 0.0))
    return [1.0, *(float(number >> place & 1) for place in range(_BITS))]
