"""Observations and texts as token ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from memorist.decision import Observation
from memorist.errors import PolicyError


def observation_ids(
    tokenizer: Any, name: str, observation: Observation, before: Callable[[Observation], list[int]] | None = None
) -> list[int]:
    """By the tokenizer's chat template where it has one, else system and prompt as plain text.

    What goes on in a window begins with exactly the ids that were seen and sampled in it before.

    Args:
        name: of the policy, for errors.
        before: tokens that stand before a turn's text, for its pictures; None where the policy cannot see.

    Raises:
        PolicyError: the chat template leaves out a message, or there are pictures for a policy that cannot see.
    """
    if before is None:
        refuse_pictures(name, observation)
    lead = before(observation) if before is not None else []
    if observation.after:
        asked, action = observation.after[-1]
        first = replace(asked, after=observation.after[:-1])
        seen = action.prompt or observation_ids(tokenizer, name, first, before)
        wrote = action.tokens or tuple(text_ids(tokenizer, action.text))
        return [*seen, *wrote, *_next_turn(tokenizer, name, observation.prompt, wrote, lead)]
    parts = [part for part in (observation.system, observation.prompt) if part]
    if not tokenizer.chat_template and not lead:
        return text_ids(tokenizer, "\n\n".join(parts))
    if not tokenizer.chat_template:
        head = text_ids(tokenizer, f"{observation.system}\n\n") if observation.system else []
        return [*head, *lead, *text_ids(tokenizer, observation.prompt)]
    # Only the template may write special tokens: what memories and people say is spliced in as plain text.
    roles = ["system"] * bool(observation.system) + ["user"] * bool(observation.prompt)
    leads = {"user": lead}
    marks = [f"\ue000{i}\ue000" for i in range(len(parts))]
    messages = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = []
    for role, mark, part in zip(roles, marks, parts, strict=True):
        ahead, found, text = text.partition(mark)
        if not found:
            raise PolicyError(f"the chat template of {name!r} leaves out a message; use a template that keeps it")
        ids += [*text_ids(tokenizer, ahead, special=True), *leads.get(role, []), *text_ids(tokenizer, part)]
    return ids + text_ids(tokenizer, text, special=True)


def refuse_pictures(name: str, observation: Observation) -> None:
    """Of a policy that cannot see: they would be left out.

    Raises:
        PolicyError: there are some.
    """
    if observation.pictures or any(asked.pictures for asked, _ in observation.after):
        raise PolicyError(f"{name!r} reads text, and was shown a picture; give the role a model that can see")


def _next_turn(tokenizer: Any, name: str, prompt: str, wrote: Sequence[int], lead: Sequence[int]) -> list[int]:
    """The end of an assistant's turn, as far as it was not written, and a user's turn after it."""
    if not tokenizer.chat_template and not lead:
        return text_ids(tokenizer, f"\n\n{prompt}")
    if not tokenizer.chat_template:
        return [*text_ids(tokenizer, "\n\n"), *lead, *text_ids(tokenizer, prompt)]
    said, asked = "\ue000said\ue000", "\ue000asked\ue000"
    messages = [("user", "-"), ("assistant", said), ("user", asked)]
    text = tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in messages], tokenize=False, add_generation_prompt=True
    )
    _, found, rest = text.partition(said)
    close, found_too, header = rest.partition(asked)
    if not (found and found_too):
        raise PolicyError(f"the chat template of {name!r} leaves out a message; use a template that keeps it")
    closing = text_ids(tokenizer, close, special=True)
    if wrote and closing[:1] == [wrote[-1]]:
        closing = closing[1:]
    return [*closing, *lead, *text_ids(tokenizer, prompt), *text_ids(tokenizer, header, special=True)]


def text_ids(tokenizer: Any, text: str, special: bool = False) -> list[int]:
    """Token ids; without `special`, text that spells a special token stays text."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=not special)
    return ids
