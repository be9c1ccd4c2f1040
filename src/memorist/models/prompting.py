"""Observations and texts as token ids."""

from __future__ import annotations

from typing import Any

from memorist.decision import Observation
from memorist.errors import PolicyError


def observation_ids(tokenizer: Any, name: str, observation: Observation) -> list[int]:
    """By the tokenizer's chat template where it has one, else system and prompt as plain text.

    Args:
        name: of the policy, for errors.

    Raises:
        PolicyError: the chat template leaves out a message.
    """
    parts = [part for part in (observation.system, observation.prompt) if part]
    if not tokenizer.chat_template:
        return text_ids(tokenizer, "\n\n".join(parts))
    # Only the template may write special tokens: what memories and people say is spliced in as plain text.
    roles = ["system"] * bool(observation.system) + ["user"] * bool(observation.prompt)
    marks = [f"\ue000{i}\ue000" for i in range(len(parts))]
    messages = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = []
    for mark, part in zip(marks, parts, strict=True):
        before, found, text = text.partition(mark)
        if not found:
            raise PolicyError(f"the chat template of {name!r} leaves out a message; use a template that keeps it")
        ids += text_ids(tokenizer, before, special=True) + text_ids(tokenizer, part)
    return ids + text_ids(tokenizer, text, special=True)


def text_ids(tokenizer: Any, text: str, special: bool = False) -> list[int]:
    """Token ids; without `special`, text that spells a special token stays text."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=not special)
    return ids
