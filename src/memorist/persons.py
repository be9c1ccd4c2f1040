"""From what people say of themselves to what is said of them: "I moved, my son helped me" becomes "Ada moved, her son
helped Ada".

No parser: English sentences in which the speaker is "I" or "we" keep their words, but for pronouns and for the present
tense of the verb after "I". What cannot be told apart by that stays as it was said.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_BASE = frozenset(
    "accept add admire admit advise agree allow answer appear apply appreciate argue arrange arrive ask attend "
    "avoid bake bathe bear begin believe belong bench bike bite blame blow book borrow bother breathe bring brush "
    "build burn buy call camp can care carry catch celebrate change chat check cheer choose clean climb close "
    "coach collect come commute compete complain consider cook cost count cover crave cross cry cycle dance deal "
    "decide deliver depend design desire detest die dig dine disagree discover dislike dive do draw dream dress "
    "drink drive drop dye earn eat employ end enjoy envy exercise expect explore face fail fall fear feed feel "
    "fight fill find finish fish fit fix fly focus follow forget forgive garden gather get give go grow guess "
    "guide hang happen hate have head hear help hide hike hire hit hold hope host hunt hurry identify imagine "
    "intend invest invite iron jog join joke jump keep kick knit know lack laugh launch lead lean learn leave "
    "lend let lie lift like limp listen live loathe look lose love make manage marry mean meditate meet mend "
    "mentor mind miss mix move need note notice offer open order organise organize own pack paint park pass pay "
    "perform pick picture place plan plant play plead post practice practise pray prefer prepare pretend print "
    "produce promise prove publish pull push put quit raise react read realise realize recall receive recommend "
    "recover recycle refuse regret relax rely remain remember remind rent repair repeat reply report require "
    "rescue research rest retire return ride ring rise row rule run sail save say schedule see seem sell send "
    "serve set sew shape share shave shoot shop show sing sit skate sketch ski skip sleep smell smile smoke snore "
    "solve sound speak spell spend spread stand stare start stay steal stick stop store struggle study suffer "
    "suggest supervise support suppose surf survive swap swear sweat swim switch take talk taste teach tell tend "
    "thank think throw tidy tip toss touch tour train translate travel treat trust try turn tutor type understand "
    "use value visit volunteer vote wait wake walk want warn wash watch water wear weigh wish wonder work worry "
    "worship write yearn".split()
)
"""Verbs as they stand after "I" in the present; those whose past has the same form count as present."""
_SAME_IN_THE_PAST = frozenset("can cost fit hit let put quit read set spread".split())
_BETWEEN = frozenset(
    "still always never usually often now just really also actually currently mostly rarely hardly only sometimes "
    "already no longer normally regularly probably simply both even ever generally typically finally personally".split()
)
"""Words that may stand between the subject and its verb."""
_BEFORE = frozenset(
    "do does did am was were have has had can could will would should may might must can't don't".split()
)
"""A verb before the subject: what follows keeps its form."""
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|(?:\W|[\d_])+")
_SHORT = {"'m": " is", "'ve": " has", "'d": " would", "'ll": " will", "'re": " is"}
_WITH_SUBJECT = {
    "am": "is", "have": "has", "do": "does", "don't": "doesn't", "haven't": "hasn't", "are": "is", "aren't": "isn't",
    "weren't": "wasn't",
}  # fmt: skip
_US = {"we": "i", "our": "my", "us": "me", "ours": "mine", "ourselves": "myself"}


@dataclass(frozen=True, slots=True)
class Person:
    """How somebody is spoken of. name: "Ada" or "my sister"; they: he, she or they; them, their: in their other
    cases."""

    name: str
    they: str = "they"
    them: str = "them"
    their: str = "their"

    @property
    def own(self) -> str:
        """Of whom something is: "Ada's"."""
        return f"{self.name}'" if self.name.endswith("s") else f"{self.name}'s"


SHE, HE = ("she", "her", "her"), ("he", "him", "his")


def third_person(verb: str) -> str:
    """A verb as it stands after "she": "goes" of "go"."""
    if verb in _WITH_SUBJECT:
        return _WITH_SUBJECT[verb]
    if verb.endswith(("s", "sh", "ch", "x", "z", "o")):
        return f"{verb}es"
    return f"{verb[:-1]}ies" if verb.endswith("y") and verb[-2] not in "aeiou" else f"{verb}s"


def told_of(sentence: str, person: Person) -> str:
    """A sentence that somebody says of themselves, told of that person; as it is where they are not in it."""
    parts = _WORD.findall(sentence.replace("’", "'"))
    made: list[str] = []
    named, acts, subject, seen = False, False, False, [""]
    for at, part in enumerate(parts):
        word = part.lower()
        if not word[0].isalpha():
            subject = subject and not set(part) & set(".,;:!?")
            made.append(part)
            continue
        stem, mark, rest = word.partition("'")
        if stem in ("i", "we") and (not mark or f"'{rest}" in _SHORT):
            after = parts[at + 2].lower() if mark and at + 2 < len(parts) else ""
            short = " had" if rest == "d" and after in ("better", "been", "had") else _SHORT.get(f"'{rest}", "")
            made.append((person.they if named else person.name) + short)
            several = seen[-1] in ("and", "or") and not acts  # "Tom and I live": as it is of both
            subject = not mark and seen[-1] not in _BEFORE and not several
            if not mark and seen[-1] in _WITH_SUBJECT:
                made[-3] = _like(_WITH_SUBJECT[seen[-1]], made[-3])
            elif not mark and stem == "we" and seen[-1] == "were":
                made[-3] = _like("was", made[-3])
            named = acts = True
        elif (own := _US.get(word, word)) in ("my", "me", "mine", "myself"):
            made.append(_case(own, person, named))
            named = named or own in ("my", "me")
        elif subject and word in _BETWEEN:
            made.append(part)
        else:
            changes = word in _WITH_SUBJECT or (word in _BASE and word not in _SAME_IN_THE_PAST)
            plural = word == "were" and seen[-1] == "we"  # "I were" is no past, it is only imagined
            made.append("was" if plural else third_person(word) if subject and changes else part)
            subject = False
        seen.append("" if part == "May" else word)
    text = "".join(made)
    return text[:1].upper() + text[1:] if sentence[:1].isupper() else text


def _case(own: str, person: Person, named: bool) -> str:
    if own == "my":
        return person.their if named else person.own
    if own == "mine":
        return f"{person.own}"
    if own == "me":
        return person.them if named else person.name
    return "themselves" if person.they == "they" else f"{person.them}self"


def _like(word: str, model: str) -> str:
    """A word with the first letter as large as another's."""
    return word.capitalize() if model[:1].isupper() else word
