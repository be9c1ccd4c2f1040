"""What somebody wrote about pictures, as whom a stage of kind "sft" imitates: the annotations that tasks come with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

from memorist.decision import Action, Observation
from memorist.errors import PolicyError
from memorist.models.sampler import Request

Key = tuple[str, ...]


class Annotations:
    """Says about pictures what the annotation of the task says that shows them and asks about them.

    Args:
        tasks: with `pictures`, `asked` and `annotation`; those that have none are left out.
    """

    name = "annotations"
    of_tasks: ClassVar[bool] = True
    """Whether it has to be told what will be asked."""

    def __init__(self, tasks: Sequence[Any] = ()) -> None:
        self.tasks = tasks

    @cached_property
    def _known(self) -> dict[Key, list[tuple[str, str]]]:
        """Questions and annotations by the pictures that they are about."""
        found: dict[Key, list[tuple[str, str]]] = {}
        for task in self.tasks:
            if annotation := getattr(task, "annotation", None):
                found.setdefault(tuple(one.digest for one in task.pictures), []).append((task.asked, annotation))
        return found

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        """What is written down for each.

        Raises:
            PolicyError: nothing is.
        """
        return [Action(self._of(request.observation)) for request in requests]

    def _of(self, seen: Observation) -> str:
        known = self._known.get(tuple(one.digest for one in seen.pictures), [])
        fitting = [(asked, said) for asked, said in known if asked in seen.prompt]
        if not fitting:
            raise PolicyError(
                f"no annotation of {len(seen.pictures)} pictures and {seen.prompt[:60]!r} is known; expected data "
                "whose tasks have annotations, as the teacher of a stage of kind 'sft'"
            )
        return max(fitting, key=lambda one: len(one[0]))[1]
