"""Pictures from files and bytes of strangers: checked before they are unpacked, and all in one form."""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path
from typing import Any

from memorist.decision import Picture
from memorist.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP")
"""Others are not even looked at."""
MOST_PIXELS = 4096 * 4096
"""Of one picture: 48 MB unpacked."""
MOST_BYTES = 64 * 1024 * 1024
NARROWEST = 200
"""How many times as long as wide a picture may be (as processors of the Qwen2-VL family demand)."""
PAPER = (255, 255, 255)
"""What shows through where a picture is transparent."""


def image_of(picture: Picture) -> Any:
    """As Pillow's image.

    Raises:
        DataError: it comes from a log, which has no pixels.
    """
    from PIL import Image

    if not picture.pixels:
        raise DataError(picture.digest[:12], "-", "picture", "has no pixels, as in logs; read its file again")
    return Image.frombytes("RGB", picture.size, picture.pixels)


def read_picture(source: str | Path | bytes) -> Picture:
    """A picture from a file, or from a file's bytes.

    Raises:
        DataError: there is none, it is broken, of another format, too large or too narrow, or Pillow is not installed;
            the message says which.
    """
    name = "picture" if isinstance(source, bytes) else str(source)

    def wrong(problem: str) -> DataError:
        return DataError(name, "-", "picture", problem)

    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise wrong("needs Pillow: pip install 'memorist[vision]'") from error
    data = source if isinstance(source, bytes) else _bytes(Path(source), wrong)
    if len(data) > MOST_BYTES:
        raise wrong(f"has {len(data):,} bytes; expected at most {MOST_BYTES:,}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which are looked at here
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            wide, high = image.size
            if wide * high > MOST_PIXELS:
                raise wrong(f"is {wide} by {high} pixels; expected at most {MOST_PIXELS:,} in all: scale it down")
            if max(wide, high) > NARROWEST * min(wide, high):
                raise wrong(f"is {wide} by {high} pixels; expected sides of at most {NARROWEST} to 1: cut it")
            flat = _flat(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise wrong(f"has far too many pixels ({error}); expected at most {MOST_PIXELS:,}") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise wrong(f"cannot be read ({error}); expected a whole {', '.join(FORMATS)} file") from error
    pixels = flat.tobytes()
    digest = hashlib.sha256(f"{flat.size} ".encode() + pixels).hexdigest()
    return Picture(flat.size, digest, pixels)


def _bytes(file: Path, wrong: Any) -> bytes:
    try:
        if file.stat().st_size > MOST_BYTES:
            raise wrong(f"has {file.stat().st_size:,} bytes; expected at most {MOST_BYTES:,}")
        return file.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise wrong(f"cannot be opened ({error}); expected a file") from error


def _flat(image: Any) -> Any:
    """In red, green and blue, on paper where it is transparent; greys of 16 bits by their upper 8."""
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        image = image.point(lambda value: value / 257).convert("L")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, (*PAPER, 255))
        image = Image.alpha_composite(paper, image)
    return image.convert("RGB")
