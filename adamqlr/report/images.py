"""Figures within the page."""

import base64
import io
from pathlib import Path
from typing import NamedTuple

from PIL import Image

# Of lines and their antialiasing, these many are told apart by nobody, and a third of the size is left.
_COLORS = 256


class EmbeddedImage(NamedTuple):
    """An image as an address that holds all of it, and its size in pixels."""

    address: str
    width: int
    height: int


def embed(path: Path) -> EmbeddedImage:
    """Return a PNG file, on white and with fewer colors, as a ``data:`` address."""
    with Image.open(path) as image:
        opaque = Image.new("RGB", image.size, "white")
        opaque.paste(image, mask=image.getchannel("A") if "A" in image.getbands() else None)
    buffer = io.BytesIO()
    opaque.quantize(_COLORS, method=Image.Quantize.FASTOCTREE).save(buffer, format="PNG")
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return EmbeddedImage(f"data:image/png;base64,{text}", *opaque.size)
