"""Every error that Memorist raises on purpose.

    MemoristError
    ├── DataError (ValueError)        a dataset is malformed: file, record, field
    ├── RecipeError (ValueError)      a recipe has an unknown key or an impossible value
    ├── PlanError (ValueError)        a model's config, a hardware profile or a workload cannot be planned with
    ├── ExpertsError (ValueError)     a mixture-of-experts checkpoint, calibration or mask cannot be worked with
    ├── HybridError (ValueError)      a model cannot become a hybrid of attention and recurrent layers
    ├── ServeError (RuntimeError)     the server refuses a request, or cannot start
    ├── ScopeError (ValueError)       a scope is missing or of the wrong type
    ├── BankError (RuntimeError)      a bank cannot do what was asked (read-only, newer version, closed)
    ├── RefusedError (ValueError)     what was to be remembered was refused: empty, too long, unknown id, a guard's no
    ├── ArgumentError (ValueError)    an argument has a value or a type that it cannot have
    ├── FilterError (ValueError)      a filter does not have the form that filters have
    ├── PolicyError (RuntimeError)    a model cannot play the role it was given
    │   └── UnreadError               a model failed while messages were read; which are read, which are not
    ├── ReplayMismatch (RuntimeError) a replayed run left the logged path
    ├── RewardError (ValueError)      a task's reward is not a finite number
    ├── TrainingError (RuntimeError)  training cannot go on: its loss is not finite
    └── CheckpointError (RuntimeError) a checkpoint is missing, torn, or of another recipe

Each message says what was given, what was expected, and what to do. Bad *model output* is
never an error: it becomes an operation with a result code (`memorist.memory.record.Code`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class MemoristError(Exception):
    """Base of all errors raised on purpose."""


class DataError(MemoristError, ValueError):
    """A dataset does not have the form that its loader expects."""

    def __init__(self, file: str, record: str, field: str, problem: str) -> None:
        self.file, self.record, self.field, self.problem = file, record, field, problem
        super().__init__(f"{file}: record {record}, field {field!r}: {problem}")

    def __reduce__(self) -> tuple[type[DataError], tuple[str, str, str, str]]:
        return type(self), (self.file, self.record, self.field, self.problem)


class RecipeError(MemoristError, ValueError):
    """A recipe asks for something that does not exist or cannot work."""


class PlanError(MemoristError, ValueError):
    """A model's configuration, a hardware profile or a workload is not one that can be planned with."""


class ExpertsError(MemoristError, ValueError):
    """A checkpoint, its calibration, or what is asked of its experts is not one that can be worked with."""


class HybridError(MemoristError, ValueError):
    """A model cannot become a hybrid of attention and recurrent layers, or not as was asked."""


class ServeError(MemoristError, RuntimeError):
    """A request is refused, with the status that says how; or the server cannot start."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)

    def __reduce__(self) -> tuple[type[ServeError], tuple[int, str]]:
        return type(self), (self.status, str(self))


class SearchError(MemoristError, RuntimeError):
    """A search server does not answer, or not by its protocol."""


class SandboxError(MemoristError, RuntimeError):
    """Code was to be run and there is no sandbox to run it in."""


class ScopeError(MemoristError, ValueError):
    """A scope is missing or of the wrong type."""


class BankError(MemoristError, RuntimeError):
    """A memory bank cannot do what was asked."""


class CommitError(BankError):
    """A memory bank is asked about a commit that it has not made."""


class RefusedError(MemoristError, ValueError):
    """What was to be remembered or changed was refused; `result` is the operation with its code."""

    def __init__(self, message: str, result: Any) -> None:
        self.result = result
        super().__init__(message)


class ArgumentError(MemoristError, ValueError):
    """An argument has a value or a type that it cannot have."""


class FilterError(MemoristError, ValueError):
    """A filter does not have the form that filters have."""


class PolicyError(MemoristError, RuntimeError):
    """A model cannot play the role it was given."""


class RoomError(MemoristError, RuntimeError):
    """More records would be kept than whoever writes may have."""


class UnreadError(PolicyError):
    """A model failed while messages were read: `results` is what came of those before, `unread` are the others."""

    def __init__(self, message: str, results: Any, unread: Any) -> None:
        self.results, self.unread = results, unread
        super().__init__(message)


class ReplayMismatch(MemoristError, RuntimeError):
    """A replayed run asked for something else than the logged one did."""


class RewardError(MemoristError, ValueError):
    """A task's reward is not a finite number."""


class TrainingError(MemoristError, RuntimeError):
    """Training cannot go on."""


class CheckpointError(MemoristError, RuntimeError):
    """A checkpoint is missing, torn, or belongs to another recipe."""


def nearest(given: str, known: Iterable[str]) -> str:
    """A sentence fragment that names the valid word nearest to `given`."""
    options = sorted(known)
    close = difflib.get_close_matches(given, options, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return "valid: " + ", ".join(options)


def need_known(what: str, given: str, known: Iterable[str]) -> None:
    """Check that a recipe names something that exists.

    Raises:
        RecipeError: `given` is not among `known`; the message names `what` it is and the nearest.
    """
    options = list(known)
    if given not in options:
        raise RecipeError(f"{what} is {given!r}; {nearest(given, options)}")
