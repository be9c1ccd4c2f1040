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
"""Bytes of sets that are kept for scoring what was sampled."""


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

    def next(self, matchers: Sequence[Any]) -> torch.Tensor:
        """What each may go on with, shape (N, V); all for None."""
        allowed = torch.ones((len(matchers), self._vocabulary), dtype=torch.bool)
        bits = self._library.torch.allocate_token_bitmask(1, self._vocabulary)
        places = torch.arange(32, dtype=torch.int32)
        for row, matcher in enumerate(matchers):
            if matcher is not None and matcher.is_stopped():
                allowed[row] = False
                allowed[row, self._end] = True
            elif matcher is not None:
                self._library.torch.fill_next_token_bitmask(matcher, bits, 0)
                allowed[row] = ((bits[0][:, None] >> places) & 1).bool().flatten()[: self._vocabulary]
        return allowed

    def advance(self, matcher: Any, token: int) -> None:
        """A text goes on with a token; what has ended takes no more.

        Raises:
            PolicyError: the token is not among those that `next` allows.
        """
        if not matcher.is_stopped() and not matcher.consume_token(token):
            raise PolicyError(
                f"token {token} does not follow its grammar ({matcher.get_error()}); expected a legal one"
            )

    def along(self, grammar: str, tokens: Sequence[int]) -> torch.Tensor:
        """What each token of an action was limited to, shape (T, V). The last ones are kept: an update asks for them
        more than once."""
        key = (grammar, tuple(tokens))
        if key in self._sets:
            self._sets.move_to_end(key)
            return self._sets[key]
        matcher, rows = self.begin(grammar), []
        for token in tokens:
            rows.append(self.next([matcher]))
            self.advance(matcher, token)
        found = self._sets[key] = torch.cat(rows) if rows else torch.ones((0, self._vocabulary), dtype=torch.bool)
        while sum(one.numel() for one in self._sets.values()) > KEPT and len(self._sets) > 1:
            self._sets.popitem(last=False)
        return found


class Followed:
    """The grammars of rows that are being written; "" for none."""

    def __init__(self, asked: Sequence[str], grammars: Callable[[], Grammars]) -> None:
        self._grammars = grammars() if any(asked) else None
        self._matchers = [self._grammars.begin(one) if self._grammars and one else None for one in asked]

    def limited(self, logits: torch.Tensor, live: Sequence[int]) -> torch.Tensor:
        """Logits of the rows that are live, shape (N, V), with minus infinity for what they may not go on with."""
        if self._grammars is None:
            return logits
        return limit(logits, list(self._grammars.next([self._matchers[i] for i in live])))

    def wrote(self, row: int, token: int) -> None:
        """A row goes on with a token."""
        if self._grammars is not None and (matcher := self._matchers[row]) is not None:
            self._grammars.advance(matcher, token)


def legal_at(batch: RowBatch, where: Sequence[int], grammars: Callable[[], Grammars]) -> Legal:
    """What each of a batch's action tokens, by their indices, was limited to."""
    found: list[tuple[int, ...] | torch.Tensor | None] = []
    for n in where:
        action, place = batch.units[batch.unit[n]].action, int(batch.place[n])
        drawn = action.distribution
        found.append(grammars().along(drawn.grammar, action.tokens)[place] if drawn.grammar else drawn.legal_at(place))
    return found
