"""Calibration data: JSON Lines, each line one sample of what the model will meet, its own replies included.

A line has `input_ids`, or `messages` (with the tokenizer's chat template), or `prompt` and `response`, or `text`. The
model's own output matters most (EASY-EP: input and own output 79 points, web text 0): raw text is a last resort.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from memorist.decision import Decision
from memorist.errors import DataError, ExpertsError
from memorist.log import read_trajectories

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json")
FORMS = "input_ids, messages, prompt and response, or text"


def read_samples(file: Path, folder: Path, *, most_tokens: int = 4096, limit: int | None = None) -> list[list[int]]:
    """Token ids of each sample, cut to `most_tokens`.

    Args:
        file: the JSON Lines.
        folder: the model's, for its tokenizer.
        most_tokens: of one sample.
        limit: most samples; the first are taken.

    Raises:
        DataError: a line is no JSON object, or has none of the known fields.
        ExpertsError: the file is missing or empty, or the tokenizer is.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ExpertsError(f"{file}: cannot be read ({error}); give JSON Lines with {FORMS}") from error
    rows = [(number, line) for number, line in enumerate(lines, 1) if line.strip()][:limit]
    if not rows:
        raise ExpertsError(f"{file}: empty; give JSON Lines with {FORMS}")
    tokenizer: list[Any] = []
    samples = [_tokens(file, number, line, folder, tokenizer) for number, line in rows]
    return [sample[:most_tokens] for sample in samples]


def replies_of(decisions: Iterable[Decision], role: str) -> list[tuple[list[int], list[int]]]:
    """What a role saw and wrote, as token ids, each pair once: siblings of a group often write the same.

    Args:
        decisions: recorded ones, for instance those of trajectories.
        role: whose.

    Raises:
        ExpertsError: none of them is of that role with token ids (samplers that return text only have none).
    """
    given = list(decisions)
    own = (one.action for one in given if one.role == role and one.action.tokens)
    found = list(dict.fromkeys((one.prompt, one.tokens) for one in own))
    if not found:
        roles = ", ".join(sorted({one.role for one in given if one.action.tokens})) or "none"
        raise ExpertsError(f"no decisions of role {role!r} with token ids; roles that have them: {roles}")
    return [(list(prompt), list(reply)) for prompt, reply in found]


def samples_of(decisions: Iterable[Decision], role: str) -> list[list[int]]:
    """What a role saw and wrote, joined: an agent's own runs are calibration data that cost nothing.

    Raises:
        ExpertsError: as `replies_of`.
    """
    return [[*prompt, *reply] for prompt, reply in replies_of(decisions, role)]


def logged_replies(log: Path, role: str, folder: Path) -> list[tuple[list[int], list[int]]]:
    """A role's prompts and replies from logged trajectories (`memorist.log`), in this model's token ids.

    Args:
        log: a file, or a folder of them, such as a run's `trajectories`.
        role: whose.
        folder: the model's; its tokenizer must be the one that the log was written with.

    Raises:
        DataError: the log cannot be read.
        ExpertsError: the role is not in it with token ids, or another tokenizer wrote them.
    """
    decisions = [decision for trajectory in read_trajectories(log) for decision in trajectory.decisions]
    found = replies_of(decisions, role)
    tokenizer = open_tokenizer(folder)
    for one in decisions:
        if one.role == role and one.action.tokens and not one.action.spans:
            read = tokenizer.decode(list(one.action.tokens), skip_special_tokens=True)
            if read.strip() != one.action.text.strip():
                raise ExpertsError(
                    f"{log}: {one.policy!r} wrote {one.action.text[:60]!r}, which this model's tokenizer reads as "
                    f"{read[:60]!r}; log runs of this model, or give its text as prompt and response"
                )
    return found


def write_samples(file: Path, samples: Sequence[Sequence[int]]) -> None:
    """Write samples as JSON Lines that `read_samples` reads."""
    lines = (json.dumps({"input_ids": list(sample)}) + "\n" for sample in samples)
    file.write_text("".join(lines), encoding="utf-8")


def data_hash(samples: Sequence[Sequence[int]]) -> str:
    """SHA-256 of all tokens."""
    return hashlib.sha256(json.dumps([list(sample) for sample in samples]).encode()).hexdigest()


def _tokens(file: Path, number: int, line: str, folder: Path, opened: list[Any]) -> list[int]:
    where = (str(file), str(number))
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(*where, "line", f"no JSON ({error})") from error
    if not isinstance(row, dict):
        raise DataError(*where, "line", f"expected an object with {FORMS}")
    if "decisions" in row:
        raise DataError(*where, "decisions", "a logged trajectory; say whose replies are wanted: --role manager")
    if "input_ids" in row:
        ids = row["input_ids"]
        if not isinstance(ids, list) or not ids or not all(type(one) is int and one >= 0 for one in ids):
            raise DataError(*where, "input_ids", "expected a list of token ids")
        return ids
    if not opened:
        opened.append(open_tokenizer(folder))
    if isinstance(messages := row.get("messages"), list) and messages:
        text = _chat(opened[0], messages, where)
    elif isinstance(row.get("prompt"), str) and isinstance(row.get("response"), str):
        text = row["prompt"] + row["response"]
    elif isinstance(row.get("text"), str):
        text = row["text"]
    else:
        raise DataError(*where, ", ".join(row) or "line", f"expected {FORMS}")
    ids = list(opened[0](text, add_special_tokens="messages" not in row)["input_ids"])
    if not ids:
        raise DataError(*where, ", ".join(row), "empty: no tokens")
    return ids


def _chat(tokenizer: Any, messages: list[Any], where: tuple[str, str]) -> str:
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception as error:
        raise DataError(*where, "messages", f"the chat template refuses them ({error})") from error


def open_tokenizer(folder: Path) -> Any:
    """A model's tokenizer.

    Raises:
        ExpertsError: its folder has none.
    """
    from transformers import AutoTokenizer

    missing = f"{folder}: no tokenizer; put its files there, or give data with input_ids"
    # Without any of them transformers 5 makes an empty tokenizer for some architectures, which has no tokens.
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise ExpertsError(missing)
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ExpertsError(missing) from error
