"""What requests say and answers hold. Fields that are not known are refused: a misspelt one would be passed over."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)

from memorist.library.results import Context, Erased
from memorist.memory.bank import Hit
from memorist.memory.record import Change, MemoryRecord, Result
from memorist.serve.keys import shown

Text = Annotated[str, Field(max_length=1_000_000)]
Name = Annotated[str, Field(max_length=512)]


def _no_number(given: Any) -> Any:
    if isinstance(given, int | float) or (isinstance(given, str) and _NUMBER.fullmatch(given)):
        raise ValueError(f"{given} is a number; expected a time, e.g. 2026-05-01T09:30:00Z")
    return given


def _in_utc(moment: datetime | None) -> datetime | None:
    """Times without a zone are in UTC."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


# Numbers would be taken for seconds since 1970, or for milliseconds where they are large.
Moment = Annotated[
    datetime | None, BeforeValidator(_no_number), AfterValidator(_in_utc), Field(examples=["2026-05-01T09:30:00Z"])
]
_TIME = TypeAdapter[datetime](Annotated[datetime, BeforeValidator(_no_number), AfterValidator(_in_utc)])


def _time_or_commit(given: Any) -> Any:
    if given is None or (isinstance(given, int) and not isinstance(given, bool) and given >= 0):
        return given
    try:
        return _TIME.validate_python(given)
    except ValidationError:
        raise ValueError(
            f"{given!r} is neither a time, e.g. 2026-05-01T09:30:00Z, nor a commit's number, of which histories tell"
        ) from None


Held = Annotated[
    datetime | int | None,
    PlainValidator(_time_or_commit),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "integer", "minimum": 0}, {"type": "null"}]}
    ),
    Field(description="what held at a time, or stood at a commit, of which histories tell"),
]
Metadata = Annotated[dict[str, Any] | None, Field(examples=[{"topic": "home"}], description="plain data to filter by")]
Where = Annotated[dict[str, Any] | None, Field(examples=[{"topic": "home"}], description="a filter over metadata")]
_NUMBER = re.compile(r"\s*[+-]?\d+(\.\d*)?\s*")
MOST_ITEMS = 1000
"""Of one request."""


class Body(BaseModel):
    """Of a request."""

    model_config = ConfigDict(extra="forbid")


class About(Body):
    """Whose memory it is; a key that is bound to a user needs none."""

    user: Annotated[Name, Field(examples=["anna"])] = ""
    agent: Name = ""
    session: Name = ""


class Item(Body):
    """Something to remember word by word."""

    text: Annotated[Text, Field(examples=["Anna lives in Porto."])]
    metadata: Metadata = None
    key: Annotated[Name | None, Field(description="a name that is unique in the scope")] = None
    expires: Annotated[Moment, Field(description="from when on it is not found any more")] = None
    at: Annotated[Moment, Field(description="when it was said; now, where nothing is given")] = None
    source: Annotated[list[Name], Field(max_length=100, description="ids of what it came from")] = []


class Add(About):
    """Texts to remember, all in one commit or none."""

    items: Annotated[list[Item], Field(min_length=1, max_length=MOST_ITEMS)]
    near: Annotated[
        float | None, Field(gt=0, le=1, examples=[0.97], description="a cosine from which on a text counts as known")
    ] = None


class Said(Body):
    """A message."""

    role: Annotated[Name, Field(examples=["user"], description="assistant, system, tool, or else a person")]
    content: Annotated[Text, Field(examples=["I moved to Leeds last week."])]


class Observe(About):
    """Messages to be read."""

    messages: Annotated[list[Said], Field(min_length=1, max_length=MOST_ITEMS, description="oldest first")]
    at: Annotated[Moment, Field(description="when they were said; now, where nothing is given")] = None
    later: Annotated[bool, Field(description="answer at once with a job to ask for")] = False


class Find(About):
    """What is asked."""

    query: Annotated[Text, Field(examples=["Where does Anna live?"])]
    k: Annotated[int, Field(ge=0, le=1000, description="records at most")] = 10
    where: Where = None
    as_of: Held = None


class Search(Find):
    """A search."""

    mode: Annotated[str, Field(pattern="^(fused|lexical|vector)$")] = "fused"
    vector: Annotated[list[float] | None, Field(max_length=8192, description="the query's, where it is at hand")] = None
    explain: Annotated[bool, Field(description="tell the parts of each score")] = False


class Tell(Find):
    """What to put before a model."""

    k: Annotated[int, Field(ge=0, le=1000, description="records at most")] = 50
    max_tokens: Annotated[int, Field(ge=0, le=1_000_000, description="of what is remembered, at most")] = 1000


class Ask(About):
    """A question that the model answers from memory."""

    question: Annotated[Text, Field(min_length=1, examples=["Where does Anna live?"])]
    k: Annotated[int, Field(ge=0, le=1000, description="records at most")] = 50
    max_tokens: Annotated[int, Field(ge=0, le=1_000_000, description="of what is remembered, at most")] = 1000
    where: Where = None
    as_of: Held = None
    stream: Annotated[bool, Field(description="word by word, as server-sent events")] = False


class Answer(BaseModel):
    """What the model said, and the ids of what it was shown."""

    answer: str
    ids: list[str]


class Update(About):
    """A new text for a record."""

    text: Annotated[Text, Field(examples=["Anna lives in Leeds."])]
    metadata: Metadata = None
    expires: Annotated[Moment, Field(description="from when on it is not found any more")] = None
    at: Annotated[Moment, Field(description="when it was said; now, where nothing is given")] = None
    reason: Annotated[Text, Field(description="why, for the history")] = ""


class Record(BaseModel):
    """A record as it stands."""

    id: str
    user: str
    agent: str
    session: str
    text: str
    created: datetime
    updated: datetime
    key: str | None
    metadata: dict[str, Any]
    source: list[str]
    expires: datetime | None

    @classmethod
    def of(cls, record: MemoryRecord) -> Record:
        """As its tenant sees it."""
        whose = shown(record.scope)
        return cls(
            id=record.id, user=whose.user, agent=whose.agent, session=whose.session, text=record.text,
            created=record.created, updated=record.updated, key=record.key, metadata=dict(record.payload),
            source=list(record.source), expires=record.expires,
        )  # fmt: skip


class Done(BaseModel):
    """What became of an operation."""

    operation: str
    code: str
    reason: str
    record: Record | None

    @classmethod
    def of(cls, result: Result) -> Done:
        """As it is told."""
        record = None if result.record is None else Record.of(result.record)
        return cls(
            operation=result.operation.kind, code=result.code.value, reason=result.operation.reason, record=record
        )


class Results(BaseModel):
    """What became of each operation."""

    results: list[Done]


class Found(BaseModel):
    """A record that answers."""

    record: Record
    score: float
    parts: dict[str, float]

    @classmethod
    def of(cls, hit: Hit) -> Found:
        """As it is told."""
        return cls(record=Record.of(hit.record), score=hit.score, parts=dict(hit.parts))


class Hits(BaseModel):
    """Records that answer, best first."""

    hits: list[Found]


class Told(BaseModel):
    """A text to put before a model, with the ids that its lines begin with."""

    text: str
    ids: list[str]
    tokens: int

    @classmethod
    def of(cls, context: Context) -> Told:
        """As it is told."""
        return cls(text=context.text, ids=list(context.ids), tokens=context.tokens)


class Records(BaseModel):
    """A page. next: what to ask `after`; None where there are no more."""

    records: list[Record]
    next: str | None


class Changed(BaseModel):
    """One change of a record."""

    commit: int
    operation: str
    before: Record | None
    after: Record | None
    reason: str

    @classmethod
    def of(cls, change: Change) -> Changed:
        """As it is told."""
        before, after = (None if one is None else Record.of(one) for one in (change.before, change.after))
        return cls(commit=change.commit, operation=change.kind.value, before=before, after=after, reason=change.reason)


class History(BaseModel):
    """Every change of a record, oldest first."""

    changes: list[Changed]


class Gone(BaseModel):
    """What was removed. done: whether the bytes are gone; pending: who still reads older pages."""

    records: int
    done: bool
    pending: list[str]

    @classmethod
    def of(cls, erased: Erased) -> Gone:
        """As it is told: where copies lie is the operator's business."""
        return cls(records=erased.records, done=erased.done, pending=list(erased.pending))


class JobState(BaseModel):
    """How far a job is: waiting, running, done or failed; what came of it, and what could not be read."""

    job: str
    state: str
    results: list[Any] = []
    unread: list[Any] = []
    detail: str = ""


class Problem(BaseModel):
    """An error, in the form of RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    request: str
