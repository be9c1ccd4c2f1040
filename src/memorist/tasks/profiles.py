"""Histories of invented people with the right profile tree at every moment: what a listener is trained and judged on.

What is said comes from `tasks.lives`: facts that change and end, plans that come true or do not, details, wishes, jokes
and questions, and what holds of others, often the same as of oneself. A leaf's right text are the values that hold, in
the order in which they were told; a plan begins with "planned: ", details follow their fact.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from memorist.conversation import Message
from memorist.memory.profile_edits import Edit, edits_between
from memorist.tasks.lives import Fact, Life, Said, subjects
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


@dataclass(frozen=True)
class Heard:
    """One message. tree: what is right after it, by leaf. edits: what makes the tree before it into this one; NO_OP
    where nothing changes. others: what holds of others by then and not of the person: nothing of it belongs into the
    tree."""

    message: Message
    tree: Mapping[str, str]
    edits: tuple[Edit, ...]
    others: frozenset[str]


def history(name: str, statements: int, *, split: str = "train", seed: int = 0) -> list[Heard]:
    """What one person says, in so many messages, always the same by its arguments."""
    rng = random.Random(f"profile/{split}/{seed}/{name}")
    life = Life(rng, split=split, voice="first", rough=0.3, subjects_=rng.randint(3, 8))
    found: list[Heard] = []
    tree: dict[str, str] = {}
    others: set[str] = set()
    for message, said in told(life, name, statements):
        before, tree = tree, right_tree(life)
        others |= _of_others(said, life)
        own = {fact.value for fact in life.facts if fact.person is life.me}
        found.append(Heard(message, tree, tuple(edits_between(before, tree)), frozenset(others - own)))
    return found


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
