"""Safetensors files as byte ranges: what is needed is read, nothing else, and no tensor is ever interpreted.

Copying bytes keeps every storage (FP8, MXFP4) as it is, and needs one buffer of memory whatever a shard's size. The
format: 8 bytes of header length, a JSON header of names, types, shapes and offsets, the data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from memorist.errors import ExpertsError

BUFFER = 8 * 2**20
_LONGEST_HEADER = 100_000_000  # As the safetensors library allows.
_METADATA = "__metadata__"


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor in a file: its type as safetensors names it, its shape, and where its bytes are."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start

    @property
    def row(self) -> int:
        """Bytes of one entry of the first dimension."""
        return self.size // self.shape[0]


@dataclass(frozen=True, slots=True)
class Written:
    """A tensor to write: all of a stored one, or some rows of its first dimension in the given order."""

    stored: Stored
    rows: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """As it will be."""
        return self.stored.shape if self.rows is None else (len(self.rows), *self.stored.shape[1:])

    @property
    def size(self) -> int:
        """Bytes as it will be."""
        return self.stored.size if self.rows is None else len(self.rows) * self.stored.row

    def ranges(self) -> Iterator[tuple[int, int]]:
        """(start, bytes) in the file; rows that follow each other are one range."""
        stored = self.stored
        if self.rows is None:
            yield stored.start, stored.size
            return
        first, count = 0, 0
        for row in self.rows:
            if count and row == first + count:
                count += 1
                continue
            if count:
                yield stored.start + first * stored.row, count * stored.row
            first, count = row, 1
        if count:
            yield stored.start + first * stored.row, count * stored.row


def read_header(file: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file.

    Raises:
        ExpertsError: it is missing, truncated, or no safetensors file.
    """
    try:
        total = file.stat().st_size
        with open(file, "rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if total < 8 or length > min(_LONGEST_HEADER, total - 8):
                raise ExpertsError(f"{file}: {total} bytes, no whole safetensors header; fetch the file again")
            header = json.loads(opened.read(length))
    except OSError as error:
        raise ExpertsError(f"{file}: cannot be read ({error.strerror}); every shard of the index is needed") from error
    except ValueError as error:
        if isinstance(error, ExpertsError):
            raise
        raise ExpertsError(f"{file}: no safetensors file ({error}); fetch it again") from error
    try:
        found = {
            name: Stored(
                file, entry["dtype"], tuple(entry["shape"]), *(8 + length + at for at in entry["data_offsets"])
            )
            for name, entry in header.items()
            if name != _METADATA
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise ExpertsError(f"{file}: no safetensors header ({error!r}); fetch the file again") from error
    needed = max((stored.end for stored in found.values()), default=8 + length)
    if needed != total:
        raise ExpertsError(f"{file}: {total} bytes, its header tells of {needed}: truncated; fetch the file again")
    return found


class Reader:
    """Reads byte ranges of files and counts them. Files stay open until `close`."""

    def __init__(self) -> None:
        self.bytes_read = 0
        self._open: dict[Path, int] = {}

    def _descriptor(self, file: Path) -> int:
        if file not in self._open:
            self._open[file] = os.open(file, os.O_RDONLY)
            if hasattr(os, "posix_fadvise"):  # Experts lie scattered: reading ahead would read those that are not kept.
                os.posix_fadvise(self._open[file], 0, 0, os.POSIX_FADV_RANDOM)
        return self._open[file]

    def chunks(self, wanted: Written) -> Iterator[memoryview]:
        """The bytes of a tensor, a buffer at a time; each is valid until the next."""
        descriptor, buffer = self._descriptor(wanted.stored.file), memoryview(bytearray(min(BUFFER, wanted.size)))
        for start, size in wanted.ranges():
            at = start
            while at < start + size:
                got = os.preadv(descriptor, [buffer[: start + size - at]], at)
                if not got:
                    raise ExpertsError(f"{wanted.stored.file}: ends at byte {at}, was longer when it was opened")
                self.bytes_read += got
                yield buffer[:got]
                at += got

    def fill(self, wanted: Written, into: memoryview) -> None:
        """Read a tensor's bytes into a buffer of just its size."""
        at = 0
        descriptor = self._descriptor(wanted.stored.file)
        for start, size in wanted.ranges():
            end = at + size
            while at < end:
                got = os.preadv(descriptor, [into[at:end]], start)
                if not got:
                    raise ExpertsError(f"{wanted.stored.file}: ends at byte {start}, was longer when it was opened")
                self.bytes_read += got
                at, start = at + got, start + got

    def close(self) -> None:
        """Close all files."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_shard(file: Path, tensors: Mapping[str, Written], reader: Reader) -> int:
    """Write a safetensors file from stored tensors; returns the bytes of its tensors.

    Wider types come first, as the safetensors library lays them out, so that every tensor is aligned.
    """
    names = sorted(tensors, key=lambda name: (-_width(tensors[name].stored), name))
    header: dict[str, Any] = {_METADATA: {"format": "pt"}}
    at = 0
    for name in names:
        tensor = tensors[name]
        header[name] = {
            "dtype": tensor.stored.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.size],
        }
        at += tensor.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(file, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        _copy((tensors[name] for name in names), reader, out)
        out.flush()
        os.fsync(out.fileno())
    return at


def _copy(tensors: Iterable[Written], reader: Reader, out: IO[bytes]) -> None:
    for tensor in tensors:
        for chunk in reader.chunks(tensor):
            out.write(chunk)


def _width(stored: Stored) -> int:
    """Bytes of one element; types of less than a byte count as one."""
    count = 1
    for size in stored.shape:
        count *= size
    return max(1, stored.size // count) if count else 1
