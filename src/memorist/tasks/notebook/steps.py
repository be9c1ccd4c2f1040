"""Notebook episodes as tagged text: written, read strictly or around mistakes, and scored for their form (sections 2.1
and 4.2 of the specification of Datarus-R1, arXiv 2508.13382, whose own formula is not public)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TAGS = ("step", "thought", "action", "action_input", "observation", "stop_analysis", "think", "answer")
TOOL = "python_executor"
ENDS = ("</action_input>", "</stop_analysis>")
"""Where a message of the policy in a notebook ends: never behind `</step>`, or it would write what was observed
itself."""
MODES = ("agentic", "reflection")
CHOSEN = "chosen"
"""What a policy is asked that may choose one of them."""

_ANY = rf"</?(?:{'|'.join(TAGS)})\s*>"


def _element(tag: str, name: str) -> str:
    """Text without any tag between a tag's two ends."""
    return rf"<{tag}>(?P<{name}>(?:(?!{_ANY}).)*)</{tag}>"


_STEP = re.compile(
    rf"<step>\s*{_element('thought', 'thought')}\s*{_element('action', 'action')}\s*{_element('action_input', 'code')}"
    rf"\s*(?:{_element('observation', 'observation')}\s*)?</step>",
    re.DOTALL,
)
_ASKED = re.compile(
    rf"<step>\s*{_element('thought', 'thought')}\s*{_element('action', 'action')}\s*{_element('action_input', 'code')}",
    re.DOTALL,
)
_STOP = re.compile(
    rf"<stop_analysis>\s*{_element('thought', 'thought')}\s*{_element('answer', 'answer')}\s*</stop_analysis>",
    re.DOTALL,
)
_REFLECTION = re.compile(rf"\s*{_element('think', 'think')}\s*{_element('answer', 'answer')}\s*", re.DOTALL)
_OPENING = re.compile(r"<(?:step|stop_analysis)>")


@dataclass(frozen=True, slots=True)
class Step:
    """One unit of reason and act. observation: None where there is none."""

    thought: str
    action: str
    code: str
    observation: str | None = None


@dataclass(frozen=True, slots=True)
class Parsed:
    """An episode as it was read. answer: None where no valid stop was found. summary: of the stop. skipped: text
    outside of what is valid, white space apart. opened: how many steps the policy began."""

    steps: tuple[Step, ...]
    answer: str | None
    summary: str
    skipped: str
    opened: int

    @property
    def strict(self) -> bool:
        """Whether it is valid from end to end."""
        return self.answer is not None and not self.skipped


@dataclass(frozen=True, slots=True)
class Part:
    """Text of an episode and who wrote it."""

    text: str
    by_policy: bool = True


def render_step(step: Step) -> str:
    """A step as text."""
    seen = "" if step.observation is None else f"\n{render_observation(step.observation)}"
    return f"{render_action(step.thought, step.code, step.action)}{seen}\n</step>"


def render_action(thought: str, code: str, action: str = TOOL) -> str:
    """What the policy writes of a step."""
    return f"<step>\n<thought>{thought}</thought>\n<action>{action}</action>\n<action_input>{code}</action_input>"


def render_reflection(thought: str, answer: str) -> str:
    """An answer at once."""
    return f"<think>{thought}</think>\n<answer>{answer}</answer>"


def render_observation(text: str) -> str:
    """What was observed, with tags that are none: a table may hold anything."""
    return f"<observation>{untagged(text)}</observation>"


def render_stop(summary: str, answer: str) -> str:
    """The end of an episode."""
    return f"<stop_analysis>\n<thought>{summary}</thought>\n<answer>{answer}</answer>\n</stop_analysis>"


def untagged(text: str) -> str:
    """A text that neither opens nor closes any of the tags."""
    return re.sub(_ANY, lambda found: "‹" + found.group()[1:], text)


def joined(parts: Iterable[Part | str]) -> tuple[str, tuple[bool, ...]]:
    """The text of the parts, and of each character whether the policy wrote it."""
    given = [part if isinstance(part, Part) else Part(part) for part in parts]
    return "".join(p.text for p in given), tuple(p.by_policy for p in given for _ in p.text)


def parse(parts: Sequence[Part | str] | str) -> Parsed:
    """Read an agentic episode; what is malformed is skipped up to the next opening of a step or of the stop, and the
    first valid stop ends it."""
    text, by_policy = joined([parts] if isinstance(parts, str) else parts)
    opened = sum(by_policy[found.start()] for found in re.finditer(r"<step>", text))
    steps: list[Step] = []
    skipped: list[str] = []
    at = 0
    while (found := _OPENING.search(text, at)) is not None:
        skipped.append(text[at : found.start()])
        whole = (_STEP if found.group() == "<step>" else _STOP).match(text, found.start())
        if whole is None:
            skipped.append(found.group())
            at = found.end()
        elif whole.re is _STEP:
            seen = whole["observation"]
            steps.append(Step(whole["thought"].strip(), whole["action"].strip(), whole["code"].strip("\n"), seen))
            at = whole.end()
        else:
            rest = "".join([*skipped, text[whole.end() :]]).strip()
            return Parsed(tuple(steps), whole["answer"].strip(), whole["thought"].strip(), rest, opened)
    return Parsed(tuple(steps), None, "", "".join([*skipped, text[at:]]).strip(), opened)


def message(text: str) -> Step | None:
    """The step that a message of the policy asks for: what is malformed before it is skipped, and None where it asks
    for none."""
    for found in reversed([*re.finditer("<step>", text)]):
        whole = _ASKED.match(text, found.start())
        if whole is not None:
            return Step(whole["thought"].strip(), whole["action"].strip(), whole["code"].strip("\n"))
    return None


def fabricated(parts: Sequence[Part | str] | str) -> bool:
    """Whether the policy wrote what only the environment may say."""
    text, by_policy = joined([parts] if isinstance(parts, str) else parts)
    return any(by_policy[found.start()] for found in re.finditer(r"<observation", text))


def structure(parts: Sequence[Part | str] | str, *, mode: str = "agentic", tools: Sequence[str] = (TOOL,)) -> float:
    """How well formed an episode is, 0 to 1: the structural reward S."""
    if mode == "reflection":
        return _reflection(joined([parts] if isinstance(parts, str) else parts)[0])
    if fabricated(parts):
        return 0.0
    found = parse(parts)
    clean = found.answer is not None and not found.skipped
    if not found.steps:
        return 0.2 if clean and not found.opened else 0.0
    count = len(found.steps)
    return (
        0.3 * (not found.skipped)
        + 0.3 * min(1.0, count / max(1, found.opened))
        + 0.2 * (found.answer is not None)
        + 0.1 * sum(step.action in tools for step in found.steps) / count
        + 0.1 * sum(bool(step.code.strip()) for step in found.steps) / count
    )


def _reflection(text: str) -> float:
    whole = _REFLECTION.fullmatch(text)
    if whole is not None:
        return 1.0
    once = all(len(re.findall(rf"<{tag}>.*?</{tag}>", text, re.DOTALL)) == 1 for tag in ("think", "answer"))
    return 0.5 if once else 0.0


def reflected(text: str) -> str | None:
    """The answer of a reflection; None where it is not well formed."""
    whole = _REFLECTION.fullmatch(text)
    return None if whole is None else whole["answer"].strip()
