"""A decision as a page shows it: what was seen, what was done, and which of its tokens count when the role learns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from memorist.decision import Action, Decision, Observation, Reward
from memorist.models.rows import written_by_policy
from memorist.view.spelling import Speller


def reward_shown(reward: Reward, weights: Mapping[str, float]) -> dict[str, Any]:
    """A term with what it counts."""
    return {
        "name": reward.name, "value": reward.value, "weight": weights.get(reward.name, 1.0),
        "decision": reward.decision, "span": reward.span,
    }  # fmt: skip


def decision_shown(decision: Decision, speller: Speller | None, learner: str | None) -> dict[str, Any]:
    """A decision with the tokens of its reply.

    `trained` says of each token whether it carries loss: the policy wrote it, and its role is the one that learns.
    Where nothing learns (`learner` is None) all are false, and `written` still says who wrote what.
    """
    seen, done = decision.observation, decision.action
    pieces = (
        None if speller is None or not done.tokens or seen.options else speller.pieces((*done.prompt, *done.tokens))
    )
    own = [bool(one) for one in written_by_policy(done)]
    learns = decision.role == learner
    return {
        "role": decision.role, "policy": decision.policy, "learns": learns, "stop": str(done.stop),
        "text": done.text, "turns": [_turn(asked, answer) for asked, answer in seen.after], "system": seen.system,
        "prompt": seen.prompt, "pictures": [list(one.size) for one in seen.shown], "ends": list(seen.ends),
        "grammar": seen.grammar, "drawn": _drawn(done), "options": _options(seen, done),
        "probabilities": [probability(one) for one in done.logprobs], "count": len(done.tokens),
        "written": own, "trained": [learns and one for one in own], "authors": _authors(done),
        "tokenizer": speller.name if speller and pieces else None,
        "pieces": None if pieces is None else pieces[len(done.prompt) :],
        "window": None if pieces is None else pieces[: len(done.prompt)],
        "media": [[one.start, one.end] for one in done.media],
    }  # fmt: skip


def probability(logprob: float) -> float | None:
    """The probability whose logarithm it is; None where it is not a number."""
    return None if math.isnan(logprob) else math.exp(min(0.0, logprob))


def _turn(asked: Observation, done: Action) -> dict[str, str]:
    return {"system": asked.system, "prompt": asked.prompt, "reply": done.text}


def _drawn(done: Action) -> dict[str, Any]:
    how = done.distribution
    limited = 0 if how.legal is None else sum(one is not None for one in how.legal)
    return {"temperature": how.temperature, "top_p": how.top_p, "top_k": how.top_k, "limited": limited}


def _options(seen: Observation, done: Action) -> list[dict[str, Any]] | None:
    """What could be chosen, in order, each with its place among the chosen ones and the probability of that."""
    if not seen.options:
        return None
    places = {chosen: place for place, chosen in enumerate(done.choice)}
    known = [probability(one) for one in done.logprobs]
    if len(known) == 1 and len(places) > 1:
        known = []  # one number for the whole order says nothing of one place
    return [
        {
            "text": text, "place": places.get(n),
            "probability": known[places[n]] if n in places and places[n] < len(known) else None,
        }
        for n, text in enumerate(seen.options)
    ]  # fmt: skip


def _authors(done: Action) -> list[str]:
    """Who wrote each token."""
    found = ["policy" if not done.spans else "unknown"] * len(done.tokens)
    for span in done.spans:
        for place in range(max(0, span.start), min(span.end, len(found))):
            found[place] = str(span.author)
    return found
