"""LoCoMo's file format: long dialogues with questions (Maharana et al., ACL 2024, arXiv 2402.17753).

One loader reads the released file (a list of samples, `conversation` nested), the older flat files (one
sample a file, sessions at top level) and synthetic dialogues written in the same schema. It survives the
released file's known defects: numbers as answers, several evidence ids in one string, ids that name no turn,
dates of sessions that do not exist, stray white space. It never reads `query`, the search words behind a
shared picture, which no participant of the dialogue saw.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from memorist.conversation import Conversation, Message, Session
from memorist.errors import DataError


@dataclass(frozen=True, slots=True)
class Category:
    """A question category by both of its names; `mem0` is empty where that protocol leaves it out."""

    locomo: str
    mem0: str


CATEGORIES: dict[int, Category] = {
    1: Category("multi-hop", "Single Hop"),
    2: Category("temporal", "Temporal"),
    3: Category("open-domain", "Multi-Hop"),
    4: Category("single-hop", "Open Domain"),
    5: Category("adversarial", ""),
}
"""Category number -> LoCoMo's name, and the name in the tables of mem0, Memory-R1 and their followers.

Three of four names are rotated between the two: the papers' counts per column (239, 83, 727, 258 in the test
split) are those of categories 1, 3, 4 and 2. So results carry the number and print both names.
"""


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    `answer` is empty where the data has none (most of category 5). `evidence` holds ids of turns, each once,
    in the data's order; `unresolved` what the data gave as evidence and names no turn. `adversarial_answer`
    is the tempting wrong answer of category 5.
    """

    text: str
    answer: str
    category: int
    evidence: tuple[str, ...]
    adversarial_answer: str = ""
    unresolved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation and the questions about it.

    `gold` holds the operations that a perfect manager would do (`gold_operations` of a sample) as plain
    objects; only synthetic data has them, and only diagnosis reads them.
    """

    conversation: Conversation
    questions: tuple[Question, ...]
    gold: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)

    @property
    def id(self) -> str:
        """The sample's id, e.g. `conv-26`."""
        return self.conversation.id


class Split(NamedTuple):
    """Dialogues by use, each in the order given."""

    train: list[Dialogue]
    validation: list[Dialogue]
    test: list[Dialogue]


def load(path: str | Path) -> list[Dialogue]:
    """The dialogues of a LoCoMo file: a list of samples or one sample, nested or flat.

    Raises:
        DataError: the file is malformed; names the file, the sample and the field.
        OSError: the file cannot be read.
    """
    path = Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(str(path), "(whole file)", "(none)", f"not JSON in UTF-8: {error}") from error
    if isinstance(document, dict):
        # The flat files of one sample are named by number and carry no id.
        name = f"conv-{path.stem}" if path.stem.isdigit() else path.stem
        document = [{"sample_id": name} | document]
    return load_json(document, str(path))


def load_json(samples: Sequence[Mapping[str, Any]], name: str) -> list[Dialogue]:
    """The dialogues of samples in LoCoMo's schema; `name` stands for the file in errors.

    Raises:
        DataError: a sample is malformed, or two have the same id.
    """
    if not isinstance(samples, list | tuple):
        raise DataError(name, "(whole file)", "(none)", f"is {_kind(samples)}; expected a list of samples")
    dialogues: list[Dialogue] = []
    seen: set[str] = set()
    for index, sample in enumerate(samples):
        reader = _Reader(name, f"#{index}")
        reader.record = reader.text(reader.need(sample, dict, "(sample)"), "sample_id")
        if reader.record in seen:
            raise reader.error("sample_id", "appears twice in this file")
        seen.add(reader.record)
        dialogues.append(reader.dialogue(sample))
    return dialogues


def split(dialogues: Iterable[Dialogue]) -> Split:
    """Memory-R1's split by conversation: conv-26 trains, conv-30 validates, all others test.

    The paper (arXiv 2508.19828) gives counts only; this assignment is the one that leaves the 239, 258, 83
    and 727 test questions of its tables. Category 5 is not removed here.
    """
    parts = Split([], [], [])
    for dialogue in dialogues:
        {"conv-26": parts.train, "conv-30": parts.validation}.get(dialogue.id, parts.test).append(dialogue)
    return parts


def locomo_path() -> Path | None:
    """The largest `locomo/locomo*.json` below the folder that MEMORIST_DATA names; None if there is none."""
    root = os.environ.get("MEMORIST_DATA")
    if not root:
        return None
    files = sorted(p for p in (Path(root) / "locomo").glob("locomo*.json") if p.is_file())
    return max(files, key=lambda p: p.stat().st_size, default=None)


def find_file(name: str) -> Path:
    """A LoCoMo file: where the name says, or below the folder that MEMORIST_DATA names.

    Raises:
        DataError: it is in neither place.
    """
    root = os.environ.get("MEMORIST_DATA")
    places = [Path(name), *([Path(root) / "locomo" / name] if root else [])]
    for place in places:
        if place.is_file():
            return place
    looked = " and ".join(map(str, places))
    raise DataError(
        name, "-", "-", f"was looked for as {looked}; expected a LoCoMo file: set data.file, or MEMORIST_DATA to the "
        "folder that has locomo/"
    )  # fmt: skip


def data_hash(path: str | Path) -> str:
    """First 12 hexadecimal digits of the file's SHA-256: which data a score was measured on."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


_EVIDENCE = re.compile(r"D:?(\d{1,9}):(\d{1,9})")
_SESSION = re.compile(r"session_([1-9]\d{0,8})")
_DATE = re.compile(r"(\d{1,2}):(\d{2})\s*([ap]m)\s+on\s+(\d{1,2})\s+([a-z]+),?\s+(\d{4})", re.IGNORECASE)
# Not strptime: its month names and am/pm follow the machine's locale.
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)  # fmt: skip


def normalise_evidence(raw: str) -> list[str]:
    """Ids of turns in a string, in order: `"D8:6; D9:17"` gives D8:6 and D9:17, `"D:11:26"` gives D11:26."""
    return [f"D{int(session)}:{int(turn)}" for session, turn in _EVIDENCE.findall(raw)]


def parse_date(raw: str) -> datetime:
    """The time that LoCoMo writes as `1:56 pm on 8 May, 2023`, without a zone.

    Raises:
        ValueError: `raw` is not of that form or names no existing time.
    """
    match = _DATE.fullmatch(raw.strip())
    month = match[5].capitalize() if match else ""
    if match is None or month not in _MONTHS or not 1 <= int(match[1]) <= 12:
        raise ValueError(f"date is {raw!r}; expected the form '1:56 pm on 8 May, 2023'")
    hour = int(match[1]) % 12 + (12 if match[3].lower() == "pm" else 0)
    return datetime(int(match[6]), _MONTHS.index(month) + 1, int(match[4]), hour, int(match[2]))


def format_date(time: datetime) -> str:
    """A time in LoCoMo's form, `1:56 pm on 8 May, 2023`; the inverse of `parse_date`."""
    half = "am" if time.hour < 12 else "pm"
    month = _MONTHS[time.month - 1]
    return f"{time.hour % 12 or 12}:{time.minute:02d} {half} on {time.day} {month}, {time.year}"


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value", int: "a number"}
    return "absent" if value is None else names.get(type(value), type(value).__name__)


@dataclass(slots=True)
class _Reader:
    """Reads one sample; knows where it is, so that an error names file, record and field."""

    file: str
    record: str

    def error(self, where: str, problem: str) -> DataError:
        return DataError(self.file, self.record, where, problem)

    def need(self, value: Any, kind: type, where: str) -> Any:
        """`value` if it is of a JSON type. A truth value is no number."""
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.error(where, f"is {_kind(value)}; expected {_kind(kind())}")
        return value

    def text(self, holder: Mapping[str, Any], key: str, where: str = "") -> str:
        """The text at `key`, without the white space around it."""
        found: str = self.need(holder.get(key), str, where + key)
        return found.strip()

    def dialogue(self, sample: Mapping[str, Any]) -> Dialogue:
        body = self.need(sample.get("conversation", sample), dict, "conversation")
        speakers = (self.text(body, "speaker_a"), self.text(body, "speaker_b"))
        numbers = sorted(int(m[1]) for m in map(_SESSION.fullmatch, body) if m)
        turns: dict[str, str] = {}
        bare = [self.session(body, number, speakers, turns) for number in numbers]
        statements = self.statements(sample, turns)
        sessions = tuple(_with_statements(session, statements) for session in bare if session.messages)
        rows = self.need(sample.get("qa"), list, "qa")
        questions = tuple(self.question(row, f"qa[{i}]", turns) for i, row in enumerate(rows))
        gold = self.need(sample.get("gold_operations", []), list, "gold_operations")
        for i, operation in enumerate(gold):
            self.need(operation, dict, f"gold_operations[{i}]")
        return Dialogue(Conversation(self.record, speakers, sessions), questions, tuple(gold))

    def session(
        self, body: Mapping[str, Any], number: int, speakers: tuple[str, str], turns: dict[str, str]
    ) -> Session:
        """One session; its turns' ids and speakers are added to `turns`."""
        key = f"session_{number}"
        rows = self.need(body[key], list, key)
        if not rows:
            return Session(key, ())
        date = self.text(body, f"{key}_date_time")
        try:
            time = parse_date(date)
        except ValueError as error:
            raise self.error(f"{key}_date_time", str(error)) from None
        messages = []
        for i, row in enumerate(rows):
            where = f"{key}[{i}]"
            self.need(row, dict, where)
            speaker = self.text(row, "speaker", f"{where}.")
            if speaker not in speakers:
                raise self.error(f"{where}.speaker", f"is {speaker!r}; expected {' or '.join(speakers)}")
            raw = self.text(row, "dia_id", f"{where}.")
            if not _EVIDENCE.fullmatch(raw):
                raise self.error(f"{where}.dia_id", f"is {raw!r}; expected the form 'D3:7'")
            turn = normalise_evidence(raw)[0]
            if turn in turns:
                raise self.error(f"{where}.dia_id", f"{turn} names two turns")
            turns[turn] = speaker
            caption = self.text(row, "blip_caption", f"{where}.") if row.get("blip_caption") is not None else ""
            messages.append(Message(speaker, self.text(row, "text", f"{where}."), turn, time, caption))
        return Session(key, tuple(messages), time)

    def statements(self, sample: Mapping[str, Any], turns: Mapping[str, str]) -> dict[str, list[str]]:
        """Id of a turn -> the facts that the data's authors noted about it.

        A fact with several ids goes to the first that names a turn, so that it is read once; a fact whose ids
        all name none is left out. Nested samples keep observations apart, flat ones beside the sessions.
        """
        found: dict[str, list[str]] = {}
        everything = self.need(sample.get("observation", sample), dict, "observation")
        for key in everything:
            if not re.fullmatch(r"session_\d+_observation", key):
                continue
            for speaker, facts in self.need(everything[key], dict, key).items():
                for i, fact in enumerate(self.need(facts, list, f"{key}.{speaker}")):
                    where = f"{key}.{speaker}[{i}]"
                    if not isinstance(fact, list) or len(fact) != 2 or not isinstance(fact[0], str):
                        raise self.error(where, "expected a pair of text and ids of turns")
                    ids = self.ids(fact[1], where)[0]
                    home = next((turn for turn in ids if turn in turns), None)
                    if home is not None:
                        found.setdefault(home, []).append(fact[0].strip())
        return found

    def ids(self, raw: Any, where: str) -> tuple[list[str], list[str]]:
        """Ids of turns in a string or a list of strings, each once; and the strings without any."""
        parts = [raw] if isinstance(raw, str) else self.need(raw, list, where)
        ids: dict[str, None] = {}
        nothing = []
        for i, part in enumerate(parts):
            inside = normalise_evidence(self.need(part, str, f"{where}[{i}]"))
            ids.update(dict.fromkeys(inside))
            if not inside:
                nothing.append(part)
        return list(ids), nothing

    def question(self, row: Any, where: str, turns: Mapping[str, str]) -> Question:
        self.need(row, dict, where)
        category = self.need(row.get("category"), int, f"{where}.category")
        if category not in CATEGORIES:
            raise self.error(f"{where}.category", f"is {category}; expected 1 to 5")
        answer = row.get("answer")
        if isinstance(answer, int | float) and not isinstance(answer, bool):
            answer = str(answer)
        elif answer is None and category == 5:
            answer = ""
        ids, nothing = self.ids(row.get("evidence", []), f"{where}.evidence")
        tempting = row.get("adversarial_answer", "")
        return Question(
            self.text(row, "question", f"{where}."),
            self.need(answer, str, f"{where}.answer").strip(),
            category,
            tuple(turn for turn in ids if turn in turns),
            tempting.strip() if isinstance(tempting, str) else str(tempting),
            tuple(turn for turn in ids if turn not in turns) + tuple(nothing),
        )


def _with_statements(session: Session, statements: Mapping[str, Sequence[str]]) -> Session:
    messages = tuple(
        Message(m.speaker, m.text, m.id, m.time, m.caption, tuple(statements.get(m.id, ()))) for m in session
    )
    return Session(session.id, messages, session.time)
