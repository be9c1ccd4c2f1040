"""Models behind an endpoint in LikeBench: as the judge, as the person who talks, as the assistant that is measured.

Whatever a model returns is data: a judge's reply that cannot be read is asked for again and then rated by the rules, a
person who leaves out what they were to say says the offline line. Both are counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from memorist.agents.components.operations import read_json
from memorist.agents.personatree import PersonaTree
from memorist.conversation import Message
from memorist.decision import Action, Distribution, Observation
from memorist.evaluation.likebench.judge import DIMENSIONS, Moment, Rating, rate
from memorist.evaluation.likebench.personas import KINDS, Persona
from memorist.evaluation.likebench.simulator import Said
from memorist.evaluation.likebench.text import text
from memorist.memory.profile_style import BRANCHES as STYLE_BRANCHES
from memorist.memory.profile_style import LEAVES as STYLE_LEAVES
from memorist.memory.record import Scope
from memorist.memory.scratch import ScratchBank
from memorist.models.sampler import Greedy, Request, Sampler


@lru_cache
def prompts() -> Mapping[str, str]:
    """What models are told, by name: rate, speak, assist, profile, rubrics."""
    file = Path(str(resources.files("memorist"))) / "evaluation" / "likebench" / "prompts.txt"
    parts = re.split(r"^\[(\w+)\]\n", file.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {name: text.strip("\n") for name, text in zip(parts[::2], parts[1::2], strict=True)}


LIMIT = 0.05
"""Share of turns that the rules rated in a judge's place from which on a run says nothing."""


@dataclass(frozen=True)
class Verdict:
    """What a judge says. flags: what was wrong with its reply. source: "llm", or "fallback" where the rules rated."""

    ratings: Mapping[str, Rating]
    reasons: Mapping[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    source: str = "llm"


@dataclass(frozen=True)
class ModelJudge:
    """A model that rates as the person would.

    Args:
        sampler: of another model than the one that is measured.
        attempts: how often it is asked, before the rules rate.
        votes: judgements of each reply, of which the median counts; more than one are drawn at temperature 0.7.
    """

    sampler: Sampler
    attempts: int = 3
    votes: int = 1

    def rate(self, one: Persona, talk: Sequence[tuple[str, str]], said: Said, reply: str, moment: Moment) -> Verdict:
        """Rate a reply; `talk`: what was said before in the session, by user and assistant."""
        offline = rate(reply, moment)
        missing = [name for name, rating in offline.items() if rating is None]
        gold = f"What you allude to is {moment.reference.gold[0]!r}.\n" if moment.reference is not None else ""
        known = [moment.known[name].current[0] for name in moment.awaited if name in moment.known]
        gold += f"What should be brought up is {known[0]!r}.\n" if known else ""
        system = prompts()["rate"].format(
            name=one.name, summary=one.summary, missing=", ".join(missing) or "none", keys=", ".join(DIMENSIONS),
            rubrics=prompts()["rubrics"], gold=gold,
        )  # fmt: skip
        told = [f"You: {user}\nAssistant: {answer}" for user, answer in talk[-6:]]
        prompt = "\n".join([*told, f"You: {said.user}", f"Assistant, to be rated: {reply}"])
        given = [v for vote in range(self.votes) if (v := self._vote(prompt, system, missing, vote)) is not None]
        return median(given) if given else Verdict(offline, source="fallback")

    def _vote(self, prompt: str, system: str, missing: Sequence[str], vote: int) -> Verdict | None:
        warm = 0.7 if self.votes > 1 else 0.0
        for attempt in range(self.attempts):
            # Asked again word for word a kept reply would come again.
            again = f"\n(attempt {attempt + 1}: JSON only)" if attempt else ""
            again += f"\n(vote {vote + 1})" if vote else ""
            found = read_ratings(_text(self.sampler, prompt + again, system, 400, temperature=warm), missing)
            if found is not None:
                return found
        return None


def median(votes: Sequence[Verdict]) -> Verdict:
    """Of each dimension the middle of the votes (of two in the middle the lower), or that it does not apply where most
    say so; reasons are the first vote's that gave that rating, flags are of all."""
    ratings: dict[str, Rating] = {}
    reasons: dict[str, str] = {}
    for name in votes[0].ratings:
        given = sorted(r for vote in votes if (r := vote.ratings[name]) is not None)
        ratings[name] = given[(len(given) - 1) // 2] if 2 * len(given) > len(votes) else None
        said = (vote.reasons[name] for vote in votes if vote.ratings[name] == ratings[name] and name in vote.reasons)
        reasons |= {name: why} if (why := next(said, None)) is not None else {}
    flags = tuple(dict.fromkeys(flag for vote in votes for flag in vote.flags))
    return Verdict(ratings, reasons, flags)


def read_ratings(reply: str, missing: Sequence[str] = ()) -> Verdict | None:
    """A judge's reply; None where it holds no ratings. Floats are rounded (halves up), what lies outside 1 to 5 is
    brought inside, what is left out does not apply, nor what is among `missing`; all that is flagged."""
    data = read_json(reply)
    if not isinstance(data, dict) or not any(name in data for name in DIMENSIONS):
        return None
    ratings: dict[str, Rating] = {}
    reasons, flags = {}, []
    for name in DIMENSIONS:
        value = data.get(name)
        if isinstance(value, dict):
            reasons[name] = str(value.get("why", ""))[:200]
            value = value.get("r")
        ratings[name], flag = _rating(value)
        if ratings[name] is not None and name in missing:
            ratings[name], flag = None, "does not apply"
        if flag:
            flags.append(f"{name}: {flag}")
    return Verdict(ratings, reasons, tuple(flags)) if any(r is not None for r in ratings.values()) else None


def _rating(value: Any) -> tuple[Rating, str]:
    if isinstance(value, str) and value.strip().upper() in ("NA", "N/A"):
        return None, ""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None, "missing" if value is None else "no number"
    if isinstance(value, bool) or not math.isfinite(number):
        return None, "no number"
    rounded = math.floor(number + 0.5)
    kept = min(5, max(1, rounded))
    return kept, "outside 1 to 5" if kept != rounded else ""


@dataclass
class ModelUser:
    """A model that says a person's lines. spoken, kept: lines that were asked for, and those that could be used."""

    sampler: Sampler
    attempts: int = 3
    spoken: int = 0
    kept: int = 0

    def speak(self, one: Persona, talk: Sequence[tuple[str, str]], said: Said) -> str:
        """In the model's words, with all that has to be said; else the offline line."""
        must = must_say(one, said.core)
        words = 60 if one.social == "social" else 25
        what = f"Say this in your own words, and keep {', '.join(map(repr, must))}: {said.core}." if must else ""
        what = what or f"Say this in your own words: {said.core}."
        if said.hint:
            what += f" Let on in passing: {said.hint}."
        system = prompts()["speak"].format(name=one.name, summary=one.summary, words=words, what=what)
        told = "\n".join(f"You: {user}\nAssistant: {answer}" for user, answer in talk[-6:]) or "(the talk begins)"
        self.spoken += 1
        for attempt in range(self.attempts):
            again = f"\n(attempt {attempt + 1})" if attempt else ""
            line = _text(self.sampler, told + again, system, 200, temperature=0.7).strip()
            read = text(line)
            if line and len(read.tokens) <= 2 * words and all(read.has([" ".join(text(m).tokens)]) for m in must):
                self.kept += 1
                return line
        return said.user


def must_say(one: Persona, core: str) -> list[str]:
    """The values and allusions in a line, word for word: without them the turn would not be what the schedule says."""
    values = (value for kind in KINDS for value in kind.values)
    read = text(core)
    return [phrase for phrase in (*values, *one.reference.surface, *one.reference.gold[:1]) if read.has([phrase])]


CONTEXTS = ("none", "full", "profile", "tree")


_USER = Scope("user")


class ModelAssistant:
    """A model that is measured.

    Args:
        sampler: the model.
        context: what it is shown of earlier sessions: "none", "full" (all that was said), "profile" (statements that
            it keeps itself) or "tree" (of `PersonaTree`, whose leaves of style it is told to follow).
    """

    def __init__(self, sampler: Sampler, context: str = "profile") -> None:
        self.sampler, self.context = sampler, context
        self.earlier: list[tuple[str, str]] = []
        self.session: list[tuple[str, str]] = []
        self.known: list[str] = []
        actor = Greedy(sampler)
        self.agent = PersonaTree(bank=ScratchBank(), listener=actor, answerer=actor, pairs=10, always=STYLE_BRANCHES)

    async def reply(self, said: str) -> str:
        """Answer."""
        answer = _text(self.sampler, said, self._system(), 400, after=self.session)
        self.session.append((said, answer))
        return answer

    def _system(self) -> str:
        assist = prompts()["assist"]
        if self.context == "full" and self.earlier:
            return f"{assist}\n\nEarlier:\n" + "\n".join(f"User: {u}\nYou: {a}" for u, a in self.earlier[-100:])
        if self.context == "profile" and self.known:
            return f"{assist}\n\nWhat you know of the user:\n" + "\n".join(f"- {line}" for line in self.known)
        if self.context == "tree" and (leaves := self.agent.tree(_USER).leaves()):
            style = "\n".join(f"- {leaves[path]}" for path in STYLE_LEAVES if path in leaves)
            known = "\n".join(f"- {path}: {text}" for path, text in leaves.items() if path not in STYLE_LEAVES)
            told = f"\n\nHow they speak and like to be answered; reply so:\n{style}" if style else ""
            return f"{assist}\n\nWhat you know of the user:\n{known or '(nothing)'}{told}"
        return assist

    async def end_session(self) -> None:
        """Keep what is worth it; a reply that cannot be read changes nothing."""
        if self.context == "profile" and self.session:
            talk = "\n".join(f"User: {u}\nAssistant: {a}" for u, a in self.session)
            known = "\n".join(f"- {line}" for line in self.known) or "(nothing)"
            data = read_json(_text(self.sampler, f"Known:\n{known}\n\nTalk:\n{talk}", prompts()["profile"], 1200))
            lines = data.get("profile") if isinstance(data, dict) else None
            if isinstance(lines, list) and all(isinstance(line, str) for line in lines):
                self.known = [line[:300] for line in lines if line.strip()][:60]
        if self.context == "tree":
            said = [
                Message(who, line)
                for pair in self.session
                for who, line in zip((_USER.user, "assistant"), pair, strict=True)
            ]
            async for _ in self.agent.observe(said, _USER):
                pass
        self.earlier += self.session
        self.session = []

    def profile(self) -> list[str]:
        """The statements that it keeps; of a tree its leaves, save those of style, which are no facts."""
        leaves = self.agent.tree(_USER).leaves()
        return [*self.known, *(text for path, text in leaves.items() if path not in STYLE_LEAVES)]

    async def recall(self, question: str) -> str:
        """Answer from what it is shown of earlier sessions."""
        return _text(self.sampler, f"{question} Answer in a few words.", self._system(), 60)


def _text(
    sampler: Sampler, prompt: str, system: str, tokens: int, *, temperature: float = 0.0,
    after: Sequence[tuple[str, str]] = (),
) -> str:  # fmt: skip
    # A window's system text stands before all else, so with what was asked first.
    before = tuple(
        (Observation(user, "" if place else system), Action(answer)) for place, (user, answer) in enumerate(after)
    )
    seen = Observation(prompt, "" if before else system, max_tokens=tokens, after=before)
    return sampler.sample([Request(seen, Distribution(temperature=temperature), 0)])[0].text
