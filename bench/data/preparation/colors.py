"""Any picture as upright RGB on white: values by their range, the turn of EXIF, transparency laid on white.

Pillow's own conversion clips values above 255 to white, drops the alpha channel and leaves a turned photo
lying on its side; everything that is encoded goes through here instead.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

ORIENTATION, BITS, PHOTOMETRIC = 0x0112, 258, 262  # tags of EXIF and TIFF
WHITE_IS_ZERO = 0
TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
    7: "TRANSVERSE", 8: "ROTATE_90",
}  # fmt: skip
"""EXIF orientation -> what turns the picture upright."""
ALPHA = ("LA", "PA", "RGBA", "RGBa")
TOPS = {"I": (2**8 - 1, 2**16 - 1, 2**31 - 1), "F": (1, 2**8 - 1, 2**16 - 1)}
"""Mode without a fixed range -> what its white may be: the smallest that no value exceeds is taken."""


def upright_rgb(image: "Image") -> tuple["Image", bool]:
    """Return an opened picture in RGB, 8 bits a channel.

    Returns:
        The picture, and whether it differs from what `Image.convert` makes of it.

    Raises:
        ValueError: a value is NaN or infinite; or what Pillow's decoders raise.
    """
    image.load()
    turn = TURNS.get(_orientation(image))  # after loading: Pillow turns a TIFF by itself
    if image.mode[0] in "IF":
        made, changed = _from_range(image), True
    elif _transparent(image):
        made, changed = _on_white(image)
    else:
        made, changed = image.convert("RGB"), False
    if turn is None:
        return made, changed
    from PIL.Image import Transpose

    return made.transpose(Transpose[turn]), True


def _orientation(image: "Image") -> Any:
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # damaged EXIF, of whatever error, says nothing about the pixels
        return None


def _transparent(image: "Image") -> bool:
    palette = image.palette
    in_palette = image.mode == "P" and palette is not None and palette.mode.endswith("A")
    return image.mode in ALPHA or "transparency" in image.info or in_palette


def _on_white(image: "Image") -> tuple["Image", bool]:
    """Return the picture laid on white, and whether any of it was transparent."""
    from PIL import Image

    layer = image.convert("RGBA")
    if layer.getchannel("A").getextrema()[0] == 255:
        return image.convert("RGB"), False
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB"), True


def _from_range(image: "Image") -> "Image":
    """Return a gray picture of 16 or 32 bits or of floats scaled to 0..255."""
    from PIL import Image

    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("values that are NaN or infinite")
    bottom, top = _range(image, values)
    gray = (values - bottom) / (top - bottom)
    if _tags(image).get(PHOTOMETRIC) == WHITE_IS_ZERO:
        gray = 1 - gray
    if isinstance(clear := image.info.get("transparency"), int):
        gray[values == clear] = 1
    return Image.fromarray(np.rint(255 * gray).astype(np.uint8)).convert("RGB")


def _range(image: "Image", values: NDArray[np.float64]) -> tuple[float, float]:
    """Return what is black and what is white.

    Sixteen bits say it themselves. Other modes do not: of values from 0 on, white is the usual one of
    `TOPS`; where some are negative, or exceed all of these, the darkest is black and the brightest white.
    """
    if image.mode.startswith("I;16"):
        bits = _tags(image).get(BITS, (16,))[0]  # TIFF has 12 as well
        return 0, 2**bits - 1
    if image.format == "PNG":  # older versions of Pillow open 16 bits as 32
        return 0, 2**16 - 1
    low, high = float(values.min()), float(values.max())
    tops = [top for top in TOPS[image.mode] if high <= top]
    if low >= 0 and tops:
        return 0, tops[0]
    return (low, high) if low < high else (low, low + 1)


def _tags(image: "Image") -> Any:
    """Return the tags of a TIFF; none of another picture."""
    return getattr(image, "tag_v2", {})
