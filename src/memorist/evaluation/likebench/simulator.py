"""The offline user: says what the schedule has, in their own register, and lets on what they did not like.

What they say depends on hashes, on what they have told so far, and on the hint that is left from the reply before;
never on a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from memorist.evaluation.likebench.judge import Alluded, Known, Liking, Moment, Rating, mentioned
from memorist.evaluation.likebench.personas import KINDS, TOPICS, Fact, Persona, pick
from memorist.evaluation.likebench.text import HUMOR, text

SCHEDULE = ("reveal", "ask", "emote", "reference", "callback", "joke")
LONG_SCHEDULE = ("reveal", "ask", "emote", "reference", "update", "callback", "small", "joke")
SAD, GLAD = -0.8, 0.7
_ALPHABET = {"call": "call", "emo": "emo", "form": "form", "hum": "humor", "know": "know", "len": "len", "ref": "ref"}
"""Dimensions in the order of which equals are hinted at, by the names that the order is of."""
ASIDES = (
    "the weather has turned again this week",
    "the tram was late once more today",
    "they painted the bridge a new colour",
    "i cleaned the windows this morning",
)
JOKES = (
    "my boss held a meeting about having fewer meetings",
    "the printer asked for a holiday before i did",
    "i told the kettle a secret and now it is all steamed up",
    "my alarm clock and i are no longer on speaking terms",
)


@dataclass(frozen=True, slots=True)
class Said:
    """What a person says in a turn. event: of the schedule as it came to be. core: without register and hint. fact:
    which one it tells, or awaits."""

    session: int
    turn: int
    event: str
    core: str
    user: str
    fact: str = ""
    topic: str = ""
    valence: float = 0.0
    hint: str = ""


@dataclass
class User:
    """One person in a run. noise: share of turns that are of somebody else, or of nothing.

    told: facts that they told, with what held when they did.
    """

    persona: Persona
    noise: float = 0.0
    turns: int = 6
    told: dict[str, str] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    strangers: dict[str, set[str]] = field(default_factory=dict)
    introduced: bool = False
    hint: str = ""

    def events(self, session: int) -> list[str]:
        """The schedule of a session."""
        base = LONG_SCHEDULE if self.turns > len(SCHEDULE) else SCHEDULE
        planned = [*base[: self.turns], *("small" for _ in range(self.turns - len(base)))]
        return ["distract" if self.u(session, t, "noise") < self.noise else e for t, e in enumerate(planned, 1)]

    def u(self, session: int, turn: int, slot: str) -> float:
        """A draw of a turn."""
        return self.persona.u(session, turn, slot)

    def known(self) -> dict[str, Known]:
        """What an assistant could know by now, with what is no longer right or was somebody else's."""
        found = {}
        for fact in self.persona.facts:
            if fact.id in self.told:
                current = self.told[fact.id]
                stale = {fact.value} if current != fact.value else set()
                others = stale | self.strangers.get(fact.id, set())
                found[fact.id] = Known((current,), tuple(sorted(others - {current})))
        return found

    def speak(self, session: int, turn: int, event: str) -> Said:
        """What they say; it takes the hint that is left."""
        event, core, fact, topic, valence = self._core(session, turn, event)
        hint, self.hint = self.hint, ""
        line = register(core, self.persona.likes(session).formality)
        user = f"{line} {hint[:1].upper()}{hint[1:]}." if hint else line
        return Said(session, turn, event, core, user, fact, topic, valence, hint)

    def _core(self, session: int, turn: int, event: str) -> tuple[str, str, str, str, float]:
        if event == "callback" and not self.told:
            event = "reveal"
        if event == "reveal":
            fact = next((f for f in self.persona.facts if f.id not in self.told), None)
            if fact is not None:
                self.told[fact.id] = fact.value
                return (
                    event,
                    (fact.kind.hints if fact.implicit else fact.kind.states).format(fact.value),
                    fact.id,
                    "",
                    0.0,
                )
            event = "small"
        if event == "update":
            changing = (f for f in self.persona.facts if f.then and f.id in self.told and f.id not in self.changed)
            fact = next(changing, None)
            if fact is not None:
                self.changed.add(fact.id)
                self.told[fact.id] = fact.then
                return event, f"things have changed and now {fact.kind.states.format(fact.then)}", fact.id, "", 0.0
            event = "small"
        if event == "ask":
            topic = pick(TOPICS, self.u(session, turn, "topic"))
            return event, f"how does one get better at {topic}", "", topic, 0.0
        if event == "emote":
            if self.u(session, turn, "mood") < 0.6:
                return event, "the day went badly and i feel low", "", "", SAD
            return event, "the day went well and i feel great", "", "", GLAD
        if event == "reference":
            alluded = self.persona.reference
            if not self.introduced:
                self.introduced = True
                return "small", f"when i say {alluded.surface[0]} i mean {alluded.gold[0]}", "", "", 0.0
            return event, f"i keep thinking of {alluded.surface[0]}", "", "", 0.0
        if event == "callback":
            name = pick(sorted(self.told), self.u(session, turn, "cb"))
            label = next(f.kind.label for f in self.persona.facts if f.id == name)
            return event, f"i have something to decide about {label}", name, "", 0.0
        if event == "joke":
            return event, pick(JOKES, self.u(session, turn, "topic")), "", "", 0.0
        if event == "distract":
            return event, self._distraction(session, turn), "", "", 0.0
        return "small", pick(ASIDES, self.u(session, turn, "topic")), "", "", 0.0

    def _distraction(self, session: int, turn: int) -> str:
        """Of somebody else, with a value that the person could have but has not, or of nothing."""
        x = self.u(session, turn, "topic")
        if x < 0.25 or not self.persona.facts:
            return pick(ASIDES, 4 * x if x < 0.25 else x)
        fact: Fact = pick(self.persona.facts, (x - 0.25) / 0.75)
        others = [value for value in fact.kind.values if value not in (fact.value, fact.then)]
        value = pick(others, self.u(session, turn, "mood"))
        self.strangers.setdefault(fact.id, set()).add(value)
        return KINDS[fact.number].of_another.format(value)

    def moment(self, said: Said, known: Mapping[str, Known], replies: list[str]) -> Moment:
        """What a reply is judged by; `known`: from before the turn."""
        return Moment(
            self.persona.likes(said.session), said.valence, said.topic,
            self.persona.reference if said.event == "reference" else None, said.event == "joke", known,
            (said.fact,) if said.event == "callback" else (), replies,
        )  # fmt: skip

    def notice(self, said: Said, ratings: Mapping[str, Rating], reply: str, known: Mapping[str, Known]) -> str:
        """The hint that they will let on next, if any; it is kept until then."""
        poor = {name: ratings[key] for name, key in _ALPHABET.items() if (ratings.get(key) or 5) <= 2}
        steady = 1.0 if self.persona.predictability == "predictable" else 0.5
        often = (0.5 + 0.5 * self.persona.directness) * steady
        if poor and self.u(said.session, said.turn, "hint") < often:
            worst = min(poor, key=lambda name: (poor[name], name))
            self.hint = hint(worst, reply, self.persona.likes(said.session), said, known, self.persona.reference)
        return self.hint


def register(core: str, formality: float) -> str:
    """A sentence in a register."""
    if formality >= 0.6:
        return f"I would appreciate your view; {core} therefore."
    if formality <= 0.4:
        return f"hey, {core} tbh!"
    return f"{core[:1].upper()}{core[1:]}."


def hint(dimension: str, reply: str, liking: Liking, said: Said, known: Mapping[str, Known], alluded: Alluded) -> str:
    """What a person lets on of one dimension."""
    read = text(reply)
    if dimension == "len":
        return "please keep it shorter" if len(read.tokens) > liking.hi else "tell me more next time"
    if dimension == "form":
        too_formal = read.formality > liking.formality
        return "no need to be so formal" if too_formal else "please be more professional"
    if dimension == "know":
        deep = liking.expertise.get(said.topic, 0.5) >= 0.5
        return "you can skip the basics" if deep else "explain it more simply"
    if dimension == "hum":
        return "no jokes please" if any(read.has(cues) for cues in HUMOR.values()) else "lighten up a bit"
    if dimension == "emo":
        wanted = {"validate": "just hear me out first", "solve": "tell me what to do"}
        return wanted.get(liking.support, "please do not question me")
    if dimension == "call":
        spurious = mentioned(read, known) and said.event != "callback"
        return "you keep bringing that up" if spurious else "i told you about this before"
    return "you know which one i mean"
