"""What a memory is used for: calls, errors, seconds and tokens by operation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from memorist.library.results import Usage
from memorist.models.endpoint import spending


class Counter:
    """Counts the calls that are made in its blocks."""

    def __init__(self) -> None:
        self._usage: dict[str, Usage] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count one call."""
        usage, began = self._usage.setdefault(name, Usage()), time.perf_counter()
        usage.calls += 1
        with spending() as spent:
            try:
                yield
            except BaseException:
                usage.errors += 1
                raise
            finally:
                usage.seconds += time.perf_counter() - began
                usage.prompt_tokens += spent.prompt_tokens
                usage.completion_tokens += spent.completion_tokens
                usage.cost += spent.cost

    def so_far(self) -> dict[str, Usage]:
        """A copy of the counts."""
        return {name: replace(usage) for name, usage in self._usage.items()}
