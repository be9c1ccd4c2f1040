"""Lines of a large file, each read when it is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from memorist.errors import DataError

CHUNK = 1 << 22
Starts = npt.NDArray[np.int64]


class Lines:
    """A file's lines by number, from 0. Where they begin is found when first asked, and anew when the file has changed.

    Args:
        file: it need not stay as it is; runs write theirs anew.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._known: tuple[tuple[int, int], Starts] | None = None

    def __len__(self) -> int:
        return len(self._starts()) - 1

    def read(self, first: int, count: int) -> list[str]:
        """Some lines, fewer at the end. What is no UTF-8 is replaced by marks.

        Raises:
            DataError: the file cannot be read.
        """
        starts = self._starts()
        last = min(first + count, len(starts) - 1)
        if not 0 <= first < last:
            return []
        begin, end = int(starts[first]), int(starts[last])
        try:
            with open(self.file, "rb") as file:
                file.seek(begin)
                data = file.read(end - begin)
        except OSError as error:
            raise unreadable(self.file, error) from error
        cuts = starts[first : last + 1] - begin
        return [data[cuts[n] : cuts[n + 1]].decode("utf-8", "replace") for n in range(last - first)]

    def _starts(self) -> Starts:
        try:
            state = self.file.stat()
            now = (state.st_mtime_ns, state.st_size)
            known = self._known
            if known is None or known[0] != now:
                known = self._known = (now, _found(self.file))
        except OSError as error:
            raise unreadable(self.file, error) from error
        return known[1]


def _found(file: Path) -> Starts:
    """Where each line begins, and where the last one ends."""
    starts, at = [np.zeros(1, np.int64)], 0
    with open(file, "rb") as data:
        while chunk := data.read(CHUNK):
            starts.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + at + 1)
            at += len(chunk)
    joined = np.concatenate(starts)
    return joined if joined[-1] == at else np.append(joined, at)


def unreadable(file: Path, error: OSError) -> DataError:
    """The error for a file that should be there and cannot be read."""
    return DataError(str(file), "-", "-", f"cannot be read ({error.strerror}); has the run's folder been moved?")
