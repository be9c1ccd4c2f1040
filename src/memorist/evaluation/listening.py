"""What a listener's trees are worth, on histories whose right tree is known at every moment: the state of each, what of
others is in them, and answers from them at equal tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from memorist.agents.personatree import PersonaTreeSettings, asked_about
from memorist.decision import Distribution, Observation
from memorist.memory.profile_text import tokens
from memorist.memory.record import Scope
from memorist.models.sampler import Request, Sampler
from memorist.tasks.profiles import Heard, ProfileQuestion, ProfilesData, history
from memorist.training.rollout import Group, Seat, play

Points = dict[str, list[float]]
"""By person."""
Count = Callable[[str], int]
GREEDY = Distribution(temperature=0.0)


@dataclass(frozen=True)
class Worth:
    """What came of it. states: of each message, by the tree that the reply leaves of the right one before it (-1 to 1).
    clauses, foreign: of the trees that are left where all is listened to from an empty one, how many there are, and how
    many say what holds of others alone. answers: by mode, 100 for each right one. shown: tokens of the prompts."""

    states: Points
    clauses: int
    foreign: int
    answers: Mapping[str, Points]
    shown: Mapping[str, Points]


def judged(
    listener: Sampler, answerer: Sampler, settings: PersonaTreeSettings, data: ProfilesData, count: Count,
    modes: Sequence[str] = ("fast", "gated", "agentic"),
) -> Worth:  # fmt: skip
    """A listener on people: first message by message, then from an empty tree to the end."""
    seats = {"listener": Seat(listener), "answerer": Seat(answerer)}
    states: Points = {}
    for (run,) in play(settings.build, replace(data, span=1).tasks(0), seats):
        states.setdefault(run.trajectory.task.partition("/")[0], []).append(run.trajectory.total())
    whole = replace(data, span=data.statements, rewards=("profile_state", "profile_asked"))
    answers: dict[str, Points] = {}
    shown: dict[str, Points] = {}
    clauses = foreign = 0
    for mode in modes:
        groups = play(replace(settings, mode=mode).build, whole.tasks(0), seats)
        if mode == modes[0]:
            clauses, foreign = _foreign(groups, settings, data)
        answers[mode], shown[mode] = _answered(groups, count)
    return Worth(states, clauses, foreign, answers, shown)


def _foreign(groups: Sequence[Group], settings: PersonaTreeSettings, data: ProfilesData) -> tuple[int, int]:
    clauses = foreign = 0
    for (run,) in groups:
        last = _told(data, run)[-1]
        tree = settings.build(bank=run.bank, listener=None, answerer=None).tree(Scope(run.task.speakers[0]))
        parts = [part for text in tree.leaves().values() for part in text.split("; ")]
        others = [f" {' '.join(tokens(value))} " for value in last.others]
        clauses += len(parts)
        foreign += sum(any(value in f" {' '.join(tokens(part))} " for value in others) for part in parts)
    return clauses, foreign


def _told(data: ProfilesData, run: Any) -> list[Heard]:
    return history(run.trajectory.task.partition("/")[0], data.statements, split=data.split, seed=data.seed)


def _answered(groups: Sequence[Group], count: Count) -> tuple[Points, Points]:
    answers: Points = {}
    shown: Points = {}
    for (run,) in groups:
        name = run.trajectory.task.partition("/")[0]
        pairs = zip(run.task.questions, run.outcome.answers, strict=True)
        answers[name] = [100.0 * question.right(answer.text) for question, answer in pairs]
        asked = [d for d in run.trajectory.decisions if d.role == "answerer"]
        shown[name] = [float(count(d.observation.prompt)) for d in asked]
    return answers, shown


def truncated(answerer: Sampler, data: ProfilesData, count: Count, room: Mapping[str, Sequence[float]]) -> Points:
    """Answers from the end of the dialogue alone, in prompts of at most as many tokens as `room` has for a person's
    questions."""
    answers: Points = {}
    for task in replace(data, span=data.statements, rewards=("profile_asked",)).tasks(0):
        name = task.id.partition("/")[0]
        lines = [f"{one.speaker}: {one.text}" for one in task.messages]
        answers[name] = []
        for question, tokens_ in zip(task.questions, room[name], strict=True):
            assert isinstance(question, ProfileQuestion)
            kept: list[str] = []
            while len(kept) < len(lines):
                more = [lines[-1 - len(kept)], *kept]
                if count(asked_about(question.text, "", "\n".join(more))) > tokens_:
                    break
                kept = more
            seen = Observation(asked_about(question.text, "", "\n".join(kept)))
            [reply] = answerer.sample([Request(seen, GREEDY, 0)])
            answers[name].append(100.0 * question.right(reply.text.rpartition("Answer:")[2]))
    return answers
