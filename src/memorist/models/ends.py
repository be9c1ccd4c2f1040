"""Where what is written ends: behind the first of some texts (`Observation.ends`), however tokens cut them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from memorist.decision import Action, Author, Span, Stop

Decode = Callable[[Sequence[int]], str]


class Ends:
    """Finds ends in what is being written.

    Args:
        decode: text of token ids.
    """

    def __init__(self, decode: Decode) -> None:
        self.decode = decode
        self._pieces: dict[int, str] = {}

    def reached(self, tokens: Sequence[int], ends: Sequence[str]) -> bool:
        """Whether the last token completes one of the ends."""
        if not ends or not tokens:
            return False
        # Nearly every token is told by its own text alone.
        if (last := tokens[-1]) not in self._pieces:
            self._pieces[last] = self.decode([last])
        if not any(end[-1] in self._pieces[last] for end in ends):
            return False
        # A token may be part of a character, of which there are four at most.
        near = self.decode(tokens[-(4 * max(map(len, ends)) + 1) :])
        return any(end in near for end in ends)

    def finished(self, action: Action, ends: Sequence[str], end: int) -> Action:
        """The action up to its first end, behind which the token that ends a reply stands. That one the policy did not
        write, so it carries no loss.

        Args:
            end: that token.
        """
        if not any(one in action.text for one in ends):
            return action
        count = next((n for n in range(1, len(action.tokens) + 1) if self.reached(action.tokens[:n], ends)), None)
        if count is None:
            return action
        return replace(
            action, text=self.decode(action.tokens[:count]), tokens=(*action.tokens[:count], end),
            logprobs=(*action.logprobs[:count], 0.0), stop=Stop.END,
            spans=(Span(0, count), Span(count, count + 1, Author.ENVIRONMENT)),
        )  # fmt: skip


class StopDetector:
    """Finds where a message ends while it is still being written, wherever pieces of it are cut."""

    def __init__(self, ends: Sequence[str]) -> None:
        self.ends = tuple(ends)
        self.text = ""
        self.stop: int | None = None

    def feed(self, piece: str) -> int | None:
        """Where the message ends (the place behind the earliest end), or None while it does not."""
        if self.stop is None:
            begin = max(0, len(self.text) - max(map(len, self.ends)) + 1)
            self.text += piece
            found = [self.text.find(end, begin) + len(end) for end in self.ends if end in self.text[begin:]]
            self.stop = min(found, default=None)
        return self.stop


def cut(text: str, ends: Sequence[str]) -> str:
    """A text up to its first end."""
    return text[: StopDetector(ends).feed(text)] if ends else text
