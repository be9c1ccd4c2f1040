"""A listener without a model: sentences of a few forms, each about one leaf. The baseline of trained listeners."""

from __future__ import annotations

import re
from collections.abc import Sequence

from memorist.agents.components.extractors import SENTENCE
from memorist.agents.components.tags import blocks
from memorist.decision import Action
from memorist.memory.profile_edits import Edit, edits_between
from memorist.models.sampler import Request

_LEGAL = "4_Identity_Characteristics.Social_Identity."
NAME = f"{_LEGAL}Legal_and_Civic_Status.Name"
RESIDENCE = f"{_LEGAL}Migration_and_Mobility.Residence"
BIRTHPLACE = f"{_LEGAL}Migration_and_Mobility.Place_of_Birth"
POSITION = f"{_LEGAL}Occupational_Role.Position"
AGE = "1_Biological_Characteristics.Physiological_Status.Age_Related_Characteristics.Chronological_Age"
HEALTH = "1_Biological_Characteristics.Physiological_Status.Health_Status"
HOBBIES = "5_Behavioral_Characteristics.Interests_and_Skills.Interests_and_Hobbies"
PET = "4_Identity_Characteristics.Family_System.Caregiving_Responsibilities.Pet_Care"
_END = r"(?=[.,;!?]|\s+(?:and|but|because|now|these days)\b|$)"


def _form(beginning: str, value: str = r"[^.,;!?]+?") -> re.Pattern[str]:
    return re.compile(rf"\b(?:{beginning})\s+({value}){_END}", re.IGNORECASE)


ONE: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (_form(r"my name is|call me"), NAME, "{}"),
    (_form(r"i am|i'm", r"\d{1,3}(?= years old)"), AGE, "{}"),
    (_form(r"i live in|i(?:'ve| have)? moved to"), RESIDENCE, "{}"),
    (_form(r"i was born in|i(?:'m| am) from"), BIRTHPLACE, "{}"),
    (_form(r"i work as(?: an?)?"), POSITION, "{}"),
)
"""Of which one value holds."""
MANY: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (_form(r"i(?:'m| am) allergic to"), HEALTH, "allergic to {}"),
    (_form(r"i (?:really |also )?(?:love|like|enjoy)"), HOBBIES, "{}"),
    (_form(r"i have(?: an?| two| three)?", r"(?:[a-z]+ )?(?:dogs?|cats?|parrots?|rabbits?)"), PET, "{}"),
)
"""Of which several may."""
GONE = (_form(r"i no longer(?: \w+)?"), re.compile(r"\bi don't \w+ ([^.,;!?]+?) any ?more\b", re.IGNORECASE))


class RuleListener:
    """Edits by regular expressions over what the person says in the first person.

    It reads the prompts of `PersonaTree`: what is known, and the dialogue.
    """

    name = "rules"

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        """Listen to each."""
        return [Action("\n".join(map(str, self.edits(one.observation.prompt)))) for one in requests]

    def edits(self, prompt: str) -> list[Edit]:
        """What a dialogue says; NO_OP where it says nothing."""
        known = known_in(prompt)
        own = known.copy()
        for said in heard_in(prompt):
            for sentence in SENTENCE.split(said):
                self._heard(sentence.strip(), own)
        return edits_between(known, own)

    def _heard(self, sentence: str, own: dict[str, str]) -> None:
        for form in GONE:
            if match := form.search(sentence):
                _forget(match[1].lower(), own)
                return
        if sentence.endswith("?"):
            return
        for form, path, text in ONE:
            if match := form.search(sentence):
                own[path] = text.format(match[1].strip())
        for form, path, text in MANY:
            if match := form.search(sentence):
                value, held = text.format(match[1].strip()), own.get(path, "")
                if value.lower() not in held.lower():
                    own[path] = f"{held}; {value}" if held else value


def _forget(what: str, own: dict[str, str]) -> None:
    """Take a thing out of the leaves that name it."""
    for path, text in own.items():
        left = [part for part in text.split("; ") if what not in part.lower()]
        own[path] = "; ".join(left)


def known_in(prompt: str) -> dict[str, str]:
    """The leaves that a prompt of `PersonaTree` shows."""
    return dict(line.split(": ", 1) for line in part_of(prompt, "known") if ": " in line)


def heard_in(prompt: str) -> list[str]:
    """What people say in it."""
    lines = (line.partition(": ") for line in part_of(prompt, "dialogue"))
    return [said for speaker, _, said in lines if speaker.lower() not in ("assistant", "system", "tool")]


def part_of(prompt: str, tag: str) -> list[str]:
    """The lines of the first part in a tag."""
    found = blocks(prompt, tag)
    return found[0].splitlines() if found else []
