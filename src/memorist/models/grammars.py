"""What a policy may write next where its text has to match a grammar: by llguidance, token by token.

A grammar has a name in the catalogue, which says its text in llguidance's Lark dialect. Text is limited, not tokens:
every way to write a legal text in tokens is legal, and so is the end where the text may end.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch

from memorist.catalogue import find
from memorist.errors import PolicyError
from memorist.models.distributions import Legal, limit
from memorist.models.rows import RowBatch

KEPT = 1 << 28
"""Bytes of sets that are kept."""


class Grammars:
    """The grammars that a policy is asked to follow.

    Args:
        tokenizer: transformers' fast one.
        vocabulary: logits that the model gives.
        end: the token that ends an action.

    Raises:
        PolicyError: llguidance is not installed.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, end: int) -> None:
        try:
            import llguidance.hf
            import llguidance.torch
        except ImportError as error:
            raise PolicyError("a grammar needs llguidance: pip install 'memorist[train]'") from error
        self._library = llguidance
        self._tokenizer = llguidance.hf.from_tokenizer(tokenizer, vocabulary, eos_token=end)
        self._vocabulary, self._end = vocabulary, end
        self._known: dict[str, Any] = {}
        self._sets: OrderedDict[tuple[str, tuple[int, ...]], torch.Tensor] = OrderedDict()

    def begin(self, grammar: str) -> Any:
        """A matcher at the beginning of a text.

        Raises:
            RecipeError: there is none of this name.
            PolicyError: it is no grammar.
        """
        if grammar not in self._known:
            name, _, given = grammar.partition(":")
            text = find("grammars", name, "grammar")(given)
            made = self._library.LLMatcher(self._tokenizer, self._library.LLMatcher.grammar_from_lark(text))
            if made.is_error():
                raise PolicyError(
                    f"grammar {grammar!r} cannot be read ({made.get_error()}); expected llguidance's Lark dialect"
                )
            self._known[grammar] = made
        return self._known[grammar].deep_copy()

    def after(self, grammar: str, written: tuple[int, ...], matcher: Callable[[], Any]) -> torch.Tensor:
        """What a text may go on with after these tokens, shape (V,).

        Kept: siblings begin alike, and an update asks again for what was sampled under.

        Args:
            matcher: gives the grammar's matcher after these tokens, where the set is not kept.
        """
        key = (grammar, written)
        if key in self._sets:
            self._sets.move_to_end(key)
            return self._sets[key]
        found = self._sets[key] = self._allowed(matcher())
        while len(self._sets) > max(1, KEPT // self._vocabulary):
            self._sets.popitem(last=False)
        return found

    def _allowed(self, matcher: Any) -> torch.Tensor:
        if matcher.is_stopped():
            ended = torch.zeros(self._vocabulary, dtype=torch.bool)
            ended[self._end] = True
            return ended
        bits = self._library.torch.allocate_token_bitmask(1, self._vocabulary)
        self._library.torch.fill_next_token_bitmask(matcher, bits, 0)
        places = torch.arange(32, dtype=torch.int32)
        # A copy: what is cut out of something larger would keep all of it.
        return ((bits[0][:, None] >> places) & 1).bool().flatten()[: self._vocabulary].clone()

    def advance(self, matcher: Any, token: int) -> None:
        """A text goes on with a token; what has ended takes no more.

        Raises:
            PolicyError: the token does not follow the grammar.
        """
        if not matcher.is_stopped() and not matcher.consume_token(token):
            raise PolicyError(
                f"token {token} does not follow its grammar ({matcher.get_error()}); expected a legal one"
            )


class Followed:
    """A text that is written along a grammar.

    Raises:
        PolicyError: while it goes on, where a token does not follow the grammar.
    """

    def __init__(self, grammars: Grammars, grammar: str) -> None:
        self._grammars, self._grammar = grammars, grammar
        self._written: tuple[int, ...] = ()
        self._matcher: Any = None
        self._read = 0

    def allowed(self) -> torch.Tensor:
        """What may come next, shape (V,)."""
        return self._grammars.after(self._grammar, self._written, self._here)

    def wrote(self, token: int) -> None:
        """It goes on with a token."""
        if not self.allowed()[token]:
            self._grammars.advance(self._here(), token)  # raises, and says why; of what has ended nothing follows
        self._written = (*self._written, token)

    def _here(self) -> Any:
        """The matcher after what is written; it reads only where a set is not kept."""
        if self._matcher is None:
            self._matcher = self._grammars.begin(self._grammar)
        for token in self._written[self._read :]:
            self._grammars.advance(self._matcher, token)
        self._read = len(self._written)
        return self._matcher


class FollowedRows:
    """The grammars of rows that are being written; "" for none."""

    def __init__(self, asked: Sequence[str], grammars: Callable[[], Grammars]) -> None:
        self._texts = [Followed(grammars(), one) if one else None for one in asked]

    def limited(self, logits: torch.Tensor, live: Sequence[int]) -> torch.Tensor:
        """Logits of the rows that are live, shape (N, V), with minus infinity for what they may not go on with."""
        return limit(logits, [text.allowed() if (text := self._texts[i]) else None for i in live])

    def wrote(self, row: int, token: int) -> None:
        """A row goes on with a token."""
        if (text := self._texts[row]) is not None:
            text.wrote(token)


def legal_at(batch: RowBatch, where: Sequence[int], grammars: Callable[[], Grammars]) -> Legal:
    """What each of a batch's action tokens, by their indices, was limited to."""
    sets: dict[int, list[torch.Tensor]] = {}
    found: list[tuple[int, ...] | torch.Tensor | None] = []
    for n in where:
        unit = int(batch.unit[n])
        action, place = batch.units[unit].action, int(batch.place[n])
        if not action.distribution.grammar:
            found.append(action.distribution.legal_at(place))
            continue
        if unit not in sets:
            sets[unit] = along(grammars(), action.distribution.grammar, action.tokens)
        found.append(sets[unit][place])
    return found


def along(grammars: Grammars, grammar: str, tokens: Sequence[int]) -> list[torch.Tensor]:
    """What each token of an action was limited to, each of shape (V,).

    Raises:
        PolicyError: a token does not follow the grammar.
    """
    text, found = Followed(grammars, grammar), []
    for token in tokens:
        found.append(text.allowed())
        text.wrote(token)
    return found
