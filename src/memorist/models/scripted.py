"""A model that does as it is told: the test double, shipped because users' tests need it too."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memorist.decision import Action, Observation
from memorist.models.sampler import Request

Script = Callable[[Observation], str]


class ScriptedSampler:
    """Answers each observation with what a function, or the next item of a list, says.

    Example:
        >>> from memorist.decision import Distribution
        >>> model = ScriptedSampler(["hello"])
        >>> model.sample([Request(Observation("hi"), Distribution(), seed=0)])[0].text
        'hello'
    """

    def __init__(self, script: Script | Sequence[str], name: str = "scripted") -> None:
        self.name = name
        self.seen: list[Observation] = []
        self._script = script
        self._next = 0

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        """One scripted action for each request.

        Raises:
            IndexError: a list of replies has run out.
        """
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Action:
        self.seen.append(request.observation)
        if callable(self._script):
            text = self._script(request.observation)
        elif self._next < len(self._script):
            text = self._script[self._next]
            self._next += 1
        else:
            raise IndexError(f"the script has {len(self._script)} replies and was asked for one more")
        choice: tuple[int, ...] = ()
        if request.observation.options:
            choice = tuple(request.observation.options.index(part) for part in text.split("\n"))
        return Action(text=text, choice=choice, distribution=request.distribution)
