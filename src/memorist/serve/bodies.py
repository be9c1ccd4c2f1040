"""What requests say and answers hold. Fields that are not known are refused: a misspelt one would be passed over."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from memorist.library.results import Context, Erased
from memorist.memory.bank import Hit
from memorist.memory.record import Change, MemoryRecord, Result
from memorist.serve.keys import shown

Text = Annotated[str, Field(max_length=1_000_000)]
Name = Annotated[str, Field(max_length=512)]
Moment = Annotated[datetime | None, Field(examples=["2026-05-01T09:30:00Z"])]
Metadata = Annotated[dict[str, Any] | None, Field(examples=[{"topic": "home"}])]
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
    key: Name | None = None
    expires: Moment = None
    at: Moment = None
    source: Annotated[list[Name], Field(max_length=100)] = []


class Add(About):
    """Texts to remember, all in one commit or none."""

    items: Annotated[list[Item], Field(min_length=1, max_length=MOST_ITEMS)]
    near: Annotated[float | None, Field(gt=0, le=1, examples=[0.97])] = None


class Said(Body):
    """A message."""

    role: Annotated[Name, Field(examples=["user"])]
    content: Annotated[Text, Field(examples=["I moved to Leeds last week."])]


class Observe(About):
    """Messages to be read. later: do not wait for it; the answer names a job to ask for."""

    messages: Annotated[list[Said], Field(min_length=1, max_length=MOST_ITEMS)]
    at: Moment = None
    later: bool = False


class Find(About):
    """What is asked. vector: the query's, where it is at hand."""

    query: Annotated[Text, Field(examples=["Where does Anna live?"])]
    k: Annotated[int, Field(ge=0, le=1000)] = 10
    where: Annotated[dict[str, Any] | None, Field(examples=[{"topic": "home"}])] = None
    as_of: Moment = None


class Search(Find):
    """A search."""

    mode: Annotated[str, Field(pattern="^(fused|lexical|vector)$")] = "fused"
    vector: Annotated[list[float] | None, Field(max_length=8192)] = None
    explain: bool = False


class Tell(Find):
    """What to put before a model."""

    k: Annotated[int, Field(ge=0, le=1000)] = 50
    max_tokens: Annotated[int, Field(ge=0, le=1_000_000)] = 1000


class Ask(About):
    """A question that the model answers from memory. stream: word by word, as server-sent events."""

    question: Annotated[Text, Field(min_length=1, examples=["Where does Anna live?"])]
    k: Annotated[int, Field(ge=0, le=1000)] = 50
    max_tokens: Annotated[int, Field(ge=0, le=1_000_000)] = 1000
    where: Annotated[dict[str, Any] | None, Field(examples=[{"topic": "home"}])] = None
    as_of: Moment = None
    stream: bool = False


class Answer(BaseModel):
    """What the model said, and the ids of what it was shown."""

    answer: str
    ids: list[str]


class Update(About):
    """A new text for a record."""

    text: Annotated[Text, Field(examples=["Anna lives in Leeds."])]
    metadata: Metadata = None
    expires: Moment = None
    at: Moment = None
    reason: Text = ""


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
