"""Pictures of strangers: what is broken, too large or odd is told before it can do harm."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("PIL")
from PIL import Image

from memorist.decision import Picture
from memorist.errors import DataError
from memorist.models.pictures import image_of, read_picture

RED = (200, 40, 40)


def written(image: Any, kind: str = "PNG", **how: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def plain(wide: int = 8, high: int = 6) -> Any:
    image = Image.new("RGB", (wide, high), RED)
    image.putpixel((0, 0), (1, 2, 3))
    return image


def claims(wide: int, high: int) -> bytes:
    """A PNG of a few bytes that says it is as large."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", wide, high, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


class TestReading:
    def test_the_same_picture_is_the_same_whatever_it_came_in(self, tmp_path: Path) -> None:
        file = tmp_path / "a.png"
        file.write_bytes(written(plain()))
        found = read_picture(file)
        assert found == read_picture(str(file)) == read_picture(written(plain(), "WEBP", lossless=True))
        assert (found.size, found.pixels[:3], found.pixels[3:6]) == ((8, 6), bytes((1, 2, 3)), bytes(RED))
        assert found.digest != read_picture(written(plain(6, 8))).digest
        assert image_of(found).tobytes() == plain().tobytes()

    @pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LA", "RGBA", "I;16"])
    def test_every_kind_of_pixel_becomes_three_colours(self, mode: str) -> None:
        kind = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
        image = Image.new("I;16", (4, 4), 40_000) if mode == "I;16" else Image.new("RGB", (4, 4), "white").convert(mode)
        found = read_picture(written(image, kind))
        assert len(found.pixels) == 4 * 4 * 3
        assert found.pixels[0] == (155 if mode == "I;16" else 255)

    def test_what_is_transparent_shows_paper(self) -> None:
        image = Image.new("RGBA", (2, 1), (200, 0, 0, 255))
        image.putpixel((1, 0), (200, 0, 0, 0))
        assert read_picture(written(image)).pixels == bytes((200, 0, 0, 255, 255, 255))
        image = Image.new("P", (1, 1), 0)
        assert read_picture(written(image, transparency=0)).pixels == b"\xff\xff\xff"

    def test_it_stands_upright(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # a quarter turn
        assert read_picture(written(plain(8, 6), "JPEG", exif=exif)).size == (6, 8)

    def test_one_pixel_is_a_picture(self) -> None:
        found = read_picture(written(Image.new("RGB", (1, 1), RED)))
        assert (found.size, found.pixels) == ((1, 1), bytes(RED))
        with pytest.raises(DataError, match="no pixels"):
            image_of(Picture(found.size, found.digest))


class TestRefused:
    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (b"", "cannot be read"), (b"GIF89a", "cannot be read"), (b"\x89PNG\r\n\x1a\n", "cannot be read"),
            (claims(8192, 8192), "8192 by 8192"), (claims(100_000, 100_000), "too many pixels"),
            (claims(2**31 - 1, 2**31 - 1), r"too many pixels|cannot be read"), (claims(2001, 10), "200 to 1"),
            (claims(64, 64), "cannot be read"), (claims(0, 5), "cannot be read"),
        ],
    )  # fmt: skip
    def test_with_its_reason(self, data: bytes, said: str) -> None:
        with pytest.raises(DataError, match=said):
            read_picture(data)

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    def test_half_a_file(self, kind: str) -> None:
        image = Image.effect_noise((64, 64), 50).convert("RGB")
        data = written(image, kind)
        with pytest.raises(DataError, match="a whole"):
            read_picture(data[: len(data) // 2])

    def test_other_formats_are_not_even_looked_at(self) -> None:
        for kind in ("BMP", "TIFF", "PPM", "ICO", "GIF"):
            with pytest.raises(DataError, match="PNG, JPEG, WEBP"):
                read_picture(written(plain(16, 16), kind))

    def test_files_that_are_none(self, tmp_path: Path) -> None:
        for place in (tmp_path / "none.png", tmp_path, "a\0b"):
            with pytest.raises(DataError, match="expected a file"):
                read_picture(place)
        large = tmp_path / "large.png"
        with open(large, "wb") as out:
            out.truncate(65 * 1024 * 1024)
        with pytest.raises(DataError, match="at most"):
            read_picture(large)

    @settings(max_examples=200)
    @given(st.data())
    def test_any_damage_is_an_error_or_a_picture(self, data: st.DataObject) -> None:
        whole = bytearray(written(plain(16, 16), data.draw(st.sampled_from(["PNG", "JPEG", "WEBP"]))))
        for _ in range(data.draw(st.integers(1, 8))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        try:
            found = read_picture(bytes(whole))
        except DataError:
            return
        assert len(found.pixels) == 3 * found.size[0] * found.size[1]
