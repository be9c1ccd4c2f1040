"""A file of many vectors that is searched without being read into memory: codes of one bit per number find a shortlist,
eight-bit numbers order it, and the caller computes the best few exactly.

Made once from what is live at a commit, mapped into memory by every process that searches, replaced as a whole. A bit
is the sign of a number after a random rotation, so that vectors that are near share most bits whatever their axes mean
(Charikar, STOC 2002). Everything in it can be made anew from the bank, and what is shown is looked up there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import numpy.typing as npt

from memorist.memory.embed import Vectors

FORM = 1
HEADER = 65_536
BLOCK = 65_536
"""Codes that are compared at once: few calls, and what is computed on the way is small (measured: larger ones gain
nothing)."""

MANY = 250_000
"""Codes from which two threads compare them: NumPy computes without Python's lock."""

SHORTLIST, SHARE = 1000, 0.001
"""Candidates that the eight-bit numbers order: at least so many, and at least this share of all."""


@lru_cache(maxsize=4)
def _rotation(size: int) -> Vectors:
    normal = np.random.default_rng(0).normal(size=(size, size))
    return np.linalg.qr(normal)[0].astype(np.float32)


def _bits(vectors: Vectors) -> npt.NDArray[np.uint64]:
    """Codes of vectors of shape (N, D), as words of 64 bits: shape (words, N)."""
    signs = np.packbits(vectors @ _rotation(vectors.shape[1]) > 0, axis=1)
    words = -(-signs.shape[1] // 8)
    padded = np.zeros((len(vectors), words * 8), np.uint8)
    padded[:, : signs.shape[1]] = signs
    return np.ascontiguousarray(padded.view(np.uint64).T)


@dataclass(frozen=True)
class VectorIndex:
    """The file, mapped: `versions` ascending, `births` beside them, and what stands for their vectors.

    `about` is what was written with it, as JSON.
    """

    about: dict[str, Any]
    versions: npt.NDArray[np.int64]
    births: npt.NDArray[np.int64]
    codes: npt.NDArray[np.uint64]
    scales: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int8]

    def shortlist(
        self, query: Vectors, k: int, dead: npt.NDArray[np.bool_], among: npt.NDArray[np.int64] | None
    ) -> npt.NDArray[np.int64]:
        """Rows, not dead and among some, that hold the `k` nearest with near certainty: a few more than `k`."""
        count = len(self.versions)
        wanted = max(SHORTLIST, 20 * k, int(SHARE * count))
        if among is None:
            distances = self._distances(query, slice(None))
            distances[dead] = _FARTHEST
            chosen = _smallest(distances, wanted)
            chosen = chosen[~dead[chosen]]
        else:
            alive = among[~dead[among]]
            if len(alive) > wanted:
                alive = alive[_smallest(self._distances(query, alive), wanted)]
            chosen = alive
        scores = (self.rows[chosen].astype(np.float32) @ query) * self.scales[chosen]
        keep = min(len(chosen), 4 * k + 32)
        if keep < len(chosen):
            chosen = chosen[np.argpartition(-scores, keep - 1)[:keep]]
        return np.sort(chosen)

    def _distances(self, query: Vectors, rows: Any) -> npt.NDArray[np.uint16]:
        """Bits in which codes differ from the query's."""
        code = _bits(query[None])[:, 0]
        codes = self.codes if isinstance(rows, slice) else self.codes[:, rows]
        found = np.empty(codes.shape[1], np.uint16)
        half = len(found) // 2 if len(found) >= MANY else 0
        other = Thread(target=_count, args=(codes[:, :half], code, found[:half])) if half else None
        if other is not None:
            other.start()
        _count(codes[:, half:], code, found[half:])
        if other is not None:
            other.join()
        return found

    def wipe(self, path: Path, versions: npt.NDArray[np.int64]) -> None:
        """Overwrite what stands for some vectors with zeros, in the file; whoever has it mapped sees it too."""
        rows = np.flatnonzero(np.isin(self.versions, versions))
        if len(rows):
            writable = _mapped(path, "r+")
            assert writable is not None
            writable.codes[:, rows] = 0
            writable.rows[rows] = 0
            writable.scales[rows] = 0
            _flush(writable)
            with open(path, "rb") as file:
                os.fsync(file.fileno())


def _count(codes: npt.NDArray[np.uint64], code: npt.NDArray[np.uint64], found: npt.NDArray[np.uint16]) -> None:
    """Write into `found` the bits in which codes of shape (words, N) differ from one of shape (words,)."""
    differing, counted = np.empty((len(code), BLOCK), np.uint64), np.empty((len(code), BLOCK), np.uint8)
    for start in range(0, len(found), BLOCK):
        part = codes[:, start : start + BLOCK]
        length = part.shape[1]
        np.bitwise_xor(part, code[:, None], out=differing[:, :length])
        np.bitwise_count(differing[:, :length], out=counted[:, :length])
        np.add.reduce(counted[:, :length], axis=0, dtype=np.uint16, out=found[start : start + length])


_FARTHEST = np.iinfo(np.uint16).max


def _smallest(distances: npt.NDArray[np.uint16], count: int) -> npt.NDArray[np.int64]:
    """Places of at least `count` smallest, all of equal distance with them."""
    if count >= len(distances):
        return np.arange(len(distances))
    counts = np.cumsum(np.bincount(np.minimum(distances, 4096), minlength=2))
    return np.flatnonzero(distances <= int(np.searchsorted(counts, count)))


def open_index(path: Path) -> VectorIndex | None:
    """The index in a file; None if there is none, or one that is torn, truncated or of another form."""
    try:
        return _mapped(path, "r")
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _mapped(path: Path, mode: Any) -> VectorIndex | None:
    with open(path, "rb") as file:
        about = json.loads(file.read(HEADER).rstrip(b"\0 "))
    count, size = int(about["count"]), int(about["size"])
    if about["form"] != FORM or path.stat().st_size != HEADER + _length(count, size):
        return None
    return VectorIndex(about, *_arrays(path, mode, count, size))


def _arrays(path: Path, mode: Any, count: int, size: int) -> list[Any]:
    arrays, at = [], HEADER
    for kind, shape in _parts(count, size):
        arrays.append(np.memmap(path, kind, mode, at, shape) if count else np.zeros(shape, kind))
        at += int(np.dtype(kind).itemsize * np.prod(shape))
    return arrays


def _allocate(descriptor: int, length: int) -> None:
    """Take the room now: a full disk is then an error, and not the end of the process while it writes to the map."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, length)
    else:
        for start in range(0, length, 2**20):
            os.write(descriptor, bytes(min(2**20, length - start)))


def _flush(index: VectorIndex) -> None:
    for array in (index.versions, index.births, index.codes, index.scales, index.rows):
        if isinstance(array, np.memmap):
            array.flush()


def _parts(count: int, size: int) -> list[tuple[Any, tuple[int, ...]]]:
    words = -(-size // 64)
    return [
        (np.int64, (count,)), (np.int64, (count,)), (np.uint64, (words, count)), (np.float32, (count,)),
        (np.int8, (count, size)),
    ]  # fmt: skip


def _length(count: int, size: int) -> int:
    return sum(int(np.dtype(kind).itemsize * np.prod(shape)) for kind, shape in _parts(count, size))


def write_index(
    path: Path, about: Callable[[], dict[str, Any]], count: int, size: int, blocks: Iterable[tuple[Any, Any, Vectors]]
) -> VectorIndex | None:
    """Make an index of `count` vectors from blocks of (versions, births, vectors), ascending by version.

    The file appears as a whole, in place of an older one. `about` is asked when all blocks have been read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with open(new, "wb") as file:
            _allocate(file.fileno(), HEADER + _length(count, size))
        made = VectorIndex({}, *_arrays(new, "r+", count, size))
        at = 0
        for versions, births, vectors in blocks:
            part = slice(at, at + len(versions))
            made.versions[part], made.births[part] = versions, births
            made.codes[:, part] = _bits(vectors)
            scales = np.maximum(np.abs(vectors).max(axis=1), 1e-30) / 127
            made.scales[part] = scales
            made.rows[part] = np.rint(vectors / scales[:, None])
            at += len(versions)
        _flush(made)
        with open(new, "rb+") as file:
            head = json.dumps(about() | {"form": FORM, "count": count, "size": size}).encode()
            file.write(head.ljust(HEADER))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    return open_index(path)
