"""Histories of invented people with the right profile tree at every moment: what a listener is trained and judged on.

What is said comes from `tasks.lives`: facts that change and end, plans that come true or do not, details, wishes, jokes
and questions, and what holds of others, often the same as of oneself. A leaf's right text are the values that hold, in
the order in which they were told; a plan begins with "planned: ", details follow their fact.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from memorist.catalogue import find
from memorist.conversation import Message
from memorist.decision import Decision, Reward
from memorist.errors import RecipeError, need_known
from memorist.memory.profile_edits import KINDS, Edit, edits_between
from memorist.memory.profile_text import tokens
from memorist.memory.profile_tree import ProfileTree
from memorist.memory.record import Code, Result, Scope
from memorist.tasks.dialogue import UNDATED, DialogueTask
from memorist.tasks.lives import SPLITS, Fact, Life, Said, subjects
from memorist.tasks.locomo import Question
from memorist.tasks.profile_rewards import alike, graded, strict
from memorist.tasks.streams import told

_SOCIAL, _SKILLS = "4_Identity_Characteristics.Social_Identity.", "5_Behavioral_Characteristics.Interests_and_Skills."
_HABITS, _LIFESTYLE = "5_Behavioral_Characteristics.Behavioral_Habits.", "5_Behavioral_Characteristics.Lifestyle."
_FAMILY, _BODY = "4_Identity_Characteristics.Family_System.", "1_Biological_Characteristics."
_CULTURE, _TIES = "5_Behavioral_Characteristics.Knowledge_Base.", "5_Behavioral_Characteristics.Social_Interactions."
LEAVES: Mapping[str, str] = {
    "home": f"{_SOCIAL}Migration_and_Mobility.Residence",
    "job": f"{_SOCIAL}Occupational_Role.Position",
    "employer": f"{_SOCIAL}Occupational_Role.Work_Experience",
    "school": f"{_SOCIAL}Educational_Background.Alma_Mater",
    "club": f"{_SOCIAL}Legal_and_Civic_Status.Organizational_Memberships",
    "language": f"{_SOCIAL}Cultural_Background.Language",
    "exam": f"{_SOCIAL}Educational_Background.Learning_Trajectory",
    "pet": f"{_FAMILY}Caregiving_Responsibilities.Pet_Care",
    "child": f"{_FAMILY}Caregiving_Responsibilities.Childcare",
    "partner": f"{_TIES}Interpersonal_Relationships.Intimate_Relationships",
    "friend": f"{_TIES}Social_Style.Social_Networks",
    "boss": f"{_TIES}Significant_Others.Collaborative_Partners",
    "neighbour": f"{_LIFESTYLE}Residential_Environment.Residential_Density",
    "flatmate": f"{_LIFESTYLE}Residential_Environment.Housing_Type",
    "colour_of_room": f"{_LIFESTYLE}Residential_Environment.Interior_Layout",
    "garden": f"{_LIFESTYLE}Residential_Environment.Physical_Space_Conditions",
    "car": f"{_LIFESTYLE}Mobility_and_Travel.Traffic_Safety_Habits",
    "commute": f"{_LIFESTYLE}Mobility_and_Travel.Commuting_Mode",
    "trip": f"{_LIFESTYLE}Mobility_and_Travel.Travel_Frequency",
    "appointment": f"{_LIFESTYLE}Daily_Schedule.Regularity_of_Routine",
    "favourite_food": f"{_LIFESTYLE}Self_Care.Dietary_Preferences",
    "dislike": f"{_LIFESTYLE}Daily_Schedule.Dietary_Habits",
    "diet": f"{_HABITS}Dietary_Habits",
    "sport": f"{_HABITS}Exercise_Habits",
    "habit": f"{_HABITS}Idiosyncratic_Habits",
    "drink": f"{_HABITS}Consumption_Habits",
    "bedtime": f"{_HABITS}Sleep_Habits",
    "size": f"{_HABITS}Clothing_Habits",
    "allergy": f"{_BODY}Physiological_Status.Health_Status",
    "illness": f"{_BODY}Physiological_Status.Genetic_Characteristics.Distinct_Constitutional_Traits",
    "birthday": f"{_BODY}Physiological_Status.Age_Related_Characteristics.Chronological_Age",
    "weight_lifted": f"{_BODY}Physiological_Status.Physical_Fitness.Strength",
    "medicine": "5_Behavioral_Characteristics.Safety_and_Protection.Health_Safety.Disease_Management",
    "instrument": f"{_SKILLS}Professional_Skills",
    "hobby": f"{_SKILLS}Interests_and_Hobbies",
    "project": f"{_SKILLS}Creative_Outputs",
    "music": f"{_CULTURE}Artistic_Preferences.Music",
    "book": f"{_CULTURE}Artistic_Preferences.Literature",
    "show": f"{_CULTURE}Artistic_Preferences.Film_and_Television",
    "team": f"{_CULTURE}Cultural_Practices.Cultural_Activities",
    "phone": "5_Behavioral_Characteristics.Digital_Behavior.Digital_Identity.Platform_Screen_Name",
    "smartphone": "5_Behavioral_Characteristics.Digital_Behavior.Commonly_Used_Devices",
    "subscription": "5_Behavioral_Characteristics.Digital_Behavior.Platform_Use.Platform_Ecosystem",
    "rent": "5_Behavioral_Characteristics.Resource_Management.Financial_Management",
    "fear": "3_Personality_Characteristics.Emotional_Characteristics.Sensitivity",
    "volunteer": "4_Identity_Characteristics.Life_Beliefs.Public_Interest_Engagement.Voluntary_Service",
}
"""Where each subject of `tasks.lives` goes; no leaf has two."""


@dataclass(frozen=True, slots=True)
class ProfileQuestion(Question):
    """What is asked of a person. values: what holds, any of which will do. path: the leaf where it belongs."""

    values: tuple[str, ...] = ()
    path: str = ""

    def right(self, answer: str) -> bool:
        """Whether an answer names one of the values."""
        said = f" {' '.join(tokens(answer))} "
        return any(f" {' '.join(tokens(value))} " in said for value in self.values)


@dataclass(frozen=True)
class Heard:
    """One message. tree: what is right after it, by leaf. edits: what makes the tree before it into this one; NO_OP
    where nothing changes. others: what was told of others by then and never held of the person: nothing of it belongs
    into the tree. questions: one about each subject of which something holds."""

    message: Message
    tree: Mapping[str, str]
    edits: tuple[Edit, ...]
    others: frozenset[str]
    questions: tuple[ProfileQuestion, ...] = ()


def history(name: str, statements: int, *, split: str = "train", seed: int = 0) -> list[Heard]:
    """What one person says, in so many messages, always the same by its arguments."""
    rng = random.Random(f"profile/{split}/{seed}/{name}")
    return heard(Life(rng, split=split, voice="first", rough=0.3, subjects_=rng.randint(3, 8)), name, statements)


def heard(life: Life, name: str, statements: int) -> list[Heard]:
    """What somebody says of a life as it goes on."""
    found: list[Heard] = []
    tree: dict[str, str] = {}
    others: set[str] = set()
    ever: set[str] = set()
    for message, said in told(life, name, statements):
        before, tree = tree, right_tree(life)
        others |= _of_others(said, life)
        ever |= {fact.value for fact in life.facts if fact.person is life.me}
        edits = tuple(edits_between(before, tree))
        found.append(Heard(message, tree, edits, frozenset(others - ever), _questions(life, message.id)))
    return found


def _questions(life: Life, evidence: str) -> tuple[ProfileQuestion, ...]:
    held: dict[str, list[str]] = {}
    for fact in life.facts:
        if fact.person is life.me and fact.value:
            held.setdefault(fact.subject.name, []).append(fact.value)
    asks = {subject.name: subject.asks for subject in subjects()}
    return tuple(
        ProfileQuestion(random.Random(f"{evidence}/{name}").choice(asks[name]), values[0], 4, (evidence,),
                        values=tuple(values), path=LEAVES[name])
        for name, values in held.items()
    )  # fmt: skip


def right_tree(life: Life) -> dict[str, str]:
    """What holds of the person, by leaf."""
    leaves: dict[str, list[str]] = {}
    for fact in life.facts:
        if fact.person is life.me:
            leaves.setdefault(LEAVES[fact.subject.name], []).append(_text(fact))
    order = {LEAVES[subject.name]: i for i, subject in enumerate(subjects())}
    return {path: "; ".join(texts) for path, texts in sorted(leaves.items(), key=lambda item: order[item[0]])}


def _text(fact: Fact) -> str:
    told = ", ".join([fact.value, *fact.details])
    return f"planned: {told}" if fact.form == "plan" else told


def _of_others(said: Said, life: Life) -> set[str]:
    facts = (said.fact, said.after)
    return {fact.value for fact in facts if fact is not None and fact.value and fact.person is not life.me}


@dataclass(frozen=True)
class ProfileTask(DialogueTask):
    """Messages to listen to, from a tree as is right by then.

    trees: the right one before the first message and after each.
    """

    trees: tuple[Mapping[str, str], ...] = field(default=(), compare=False)

    cuts: ClassVar[tuple[str, ...]] = ()

    def states(self, results: Sequence[Sequence[Result]]) -> Iterator[float]:
        """Of each reply the reward by the tree that it leaves (-1 to 1), beside what the right edits make of the same
        tree before it: what was missed earlier is not held against it. Where a reply is about several messages it is
        one."""
        own = dict(self.trees[0])
        trees = self.trees if len(results) == len(self.trees) - 1 else (self.trees[0], self.trees[-1])
        for done, a, b in zip(results, trees, trees[1:], strict=False):
            before = dict(own)
            wanted = {path: text for path, text in before.items() if path not in a or path in b}
            wanted |= {path: text for path, text in b.items() if a.get(path) != text}
            for result in done:
                path = result.operation.key
                if result.code is Code.APPLIED and path is not None:
                    own[path] = "" if result.operation.kind == "DELETE" else result.operation.text
            own = {path: text for path, text in own.items() if text}
            yield alike(before, wanted, own)


def profile_state(task: ProfileTask, outcome: Any, decisions: Sequence[Decision]) -> tuple[Reward, ...]:
    """state: by the tree that a reply leaves, from -1 to 1; on each reply where there are several."""
    found = list(task.states(outcome.results))
    if len(found) == 1:
        return () if decisions else (Reward("state", found[0]),)
    heard = [i for i, decision in enumerate(decisions) if decision.role == "listener"]
    return tuple(Reward(f"state-{n}", value, i) for n, (value, i) in enumerate(zip(found, heard, strict=False)))


def _edits_worth(
    name: str, like: Callable[[Sequence[Edit], Sequence[Edit]], float]
) -> Callable[[ProfileTask, Any, Sequence[Decision]], tuple[Reward, ...]]:
    """A term that holds the edits of each reply against the right ones from the right tree before it."""

    def term(task: ProfileTask, outcome: Any, decisions: Sequence[Decision]) -> tuple[Reward, ...]:
        trees = task.trees if len(outcome.results) == len(task.trees) - 1 else (task.trees[0], task.trees[-1])
        pairs = zip(outcome.results, trees, trees[1:], strict=False)
        found = [like(edits_between(a, b), [_edit(one) for one in done]) for done, a, b in pairs]
        if len(found) == 1:
            return () if decisions else (Reward(name, found[0]),)
        heard = [i for i, decision in enumerate(decisions) if decision.role == "listener"]
        return tuple(Reward(f"{name}-{n}", value, i) for n, (value, i) in enumerate(zip(found, heard, strict=False)))

    term.__doc__ = f"{name}: from -1 to 1, of each reply's edits (`tasks.profile_rewards`)."
    term.needs = "listener"  # type: ignore[attr-defined]
    return term


def _edit(result: Result) -> Edit:
    operation = result.operation
    kind = "NO_OP" if operation.kind == "NOOP" else operation.kind
    return Edit(kind, operation.key or "", "" if kind == "DELETE" else operation.text)


def _form(right: Sequence[Edit], given: Sequence[Edit]) -> float:
    """From -1, where no line of a reply is an edit, to 1, where all are: others have no kind."""
    bad = sum(edit.kind not in KINDS for edit in given)
    return 1 - 2 * bad / len(given) if len(given) > bad else -1.0


profile_state.needs = "listener"  # type: ignore[attr-defined]
profile_strict = _edits_worth("strict", strict)
profile_graded = _edits_worth("graded", graded)
profile_form = _edits_worth("form", _form)


def profile_asked(task: ProfileTask, outcome: Any, decisions: Sequence[Decision]) -> tuple[Reward, ...]:
    """asked: whether a question that is asked after the last message is answered right, on the last reply that changed
    the leaf where the answer belongs, or should have: what was written early is paid when it is asked for, and what was
    not written is not."""
    heard = [i for i, decision in enumerate(decisions) if decision.role == "listener"]
    found = []
    for question, answer in zip(task.questions, outcome.answers, strict=True):
        assert isinstance(question, ProfileQuestion)
        wrote = [
            i for i, results in zip(heard, outcome.results, strict=False)
            if any(r.code is Code.APPLIED and r.operation.key == question.path for r in results)
        ]  # fmt: skip
        due = [
            i for i, a, b in zip(heard, task.trees, task.trees[1:], strict=False)
            if a.get(question.path) != b.get(question.path)
        ]  # fmt: skip
        for place in (wrote or due)[-1:]:
            found.append(Reward(f"asked-{question.path}", float(question.right(answer.text)), place))
    return tuple(found)


profile_asked.needs = "listener"  # type: ignore[attr-defined]


@dataclass(frozen=True)
class ProfilesData:
    """What invented people say of themselves and others.

    people: how many. statements: of each. span: messages of a task; several are listened to one after the other, each
    in the tree that those before left. quiet: share of the tasks after which the tree is as before that are kept; most
    of what people say is not for it. rewards: terms, by their names in the catalogue. bank: whose vectors find pieces
    of the dialogue.
    """

    kind: str = "profiles"
    split: str = "train"
    people: int = 400
    statements: int = 24
    span: int = 1
    quiet: float = 1.0
    seed: int = 0
    rewards: tuple[str, ...] = ("profile_state",)
    bank: str = "hashed"

    exercise: ClassVar[str] = "dialogue"

    def check(self, where: str = "data") -> None:
        """Refuse what cannot work.

        Raises:
            RecipeError: a setting names something that does not exist, or a number is too small.
        """
        need_known(f"{where}.split", self.split, SPLITS)
        for name in ("people", "statements", "span"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{where}.{name} is {getattr(self, name)}; expected 1 or more")
        if not 0 <= self.quiet <= 1:
            raise RecipeError(f"{where}.quiet is {self.quiet}; expected a share from 0 to 1")
        if not self.rewards:
            raise RecipeError(f"{where}.rewards is empty; expected at least one, e.g. profile_state")
        for i, name in enumerate(self.rewards):
            find("rewards", name, f"{where}.rewards[{i}]")
        find("banks", self.bank, f"{where}.bank")

    def tasks(self, seed: int) -> list[ProfileTask]:
        """The tasks; `seed`, the run's, changes nothing of them."""
        return [task for i in range(self.people) for task in self._of(f"person-{i}")]

    def _of(self, name: str) -> Iterator[ProfileTask]:
        said = history(name, self.statements, split=self.split, seed=self.seed)
        trees: list[Mapping[str, str]] = [{}, *(one.tree for one in said)]
        bank = find("banks", self.bank, "data.bank")
        asks = "profile_asked" in self.rewards
        for start in range(0, len(said) - self.span + 1, self.span):
            part = said[start : start + self.span]
            same = trees[start] == trees[start + self.span]
            if same and random.Random(f"quiet/{name}/{start}").random() >= self.quiet:
                continue
            before = bank()
            scope = Scope(part[0].message.speaker)
            ProfileTree(before, scope, guard="off", budget=10_000).apply(
                edits_between({}, trees[start]), at=part[0].message.time or UNDATED
            )
            yield ProfileTask(
                f"{name}/{start}", (scope.user,), tuple(one.message for one in part),
                part[-1].questions if asks else (), before, self.rewards,
                trees=tuple(trees[start : start + self.span + 1]),
            )  # fmt: skip
