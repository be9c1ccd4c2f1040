"""A LangGraph store whose items are records: `graph.compile(store=MemoristStore(memory))`.

    memory = Memory("memory.db")
    store = MemoristStore(memory)
    store.put(("anna", "facts"), "home", {"text": "Anna lives in Porto."})
    store.search(("anna",), query="Where does she live?")

The first part of a namespace is whose memory it is (`user`), so that erasing a user takes their items along.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
)

from memorist.errors import ArgumentError
from memorist.library.memory import Memory
from memorist.memory.record import MemoryRecord, Scope

Namespace = tuple[str, ...]
AGENT = "langgraph"
"""The agent whose part of a user's memory the items are."""
_OPERATORS = {"$eq": "eq", "$ne": "ne", "$gt": "gt", "$gte": "gte", "$lt": "lt", "$lte": "lte"}


class MemoristStore(BaseStore):
    """Items of namespaces as records of a memory.

    Args:
        memory: where they lie.
        user: whose memory a namespace belongs to; by default its first part.

    `index=False` is not followed: every item can be found. A time to live hides an item; what hides is gone for good
    when it is deleted or its user is erased.
    """

    supports_ttl = True

    def __init__(self, memory: Memory, *, user: Callable[[Namespace], str] = lambda namespace: namespace[0]) -> None:
        self.memory, self.user = memory, user

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Do what is asked, in order."""
        return [self._done(op) for op in ops]

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """As `batch`, beside the event loop."""
        return await asyncio.to_thread(self.batch, list(ops))

    def _done(self, op: Op) -> Result:
        if isinstance(op, GetOp):
            found = self._held(op.namespace, op.key)
            return None if found is None else Item(**_about(found))
        if isinstance(op, SearchOp):
            return self._search(op)
        if isinstance(op, ListNamespacesOp):
            return self._namespaces(op)
        if isinstance(op, PutOp):
            self._put(op)
            return None
        raise ArgumentError(f"an operation is {op!r}; expected get, search, put or a list of namespaces of LangGraph's")

    def _scope(self, namespace: Namespace) -> Scope:
        if not namespace:
            raise ArgumentError(
                "the namespace is empty; its first part says whose memory it is, e.g. ('anna', 'facts')"
            )
        return Scope(self.user(namespace), AGENT)

    def _held(self, namespace: Namespace, key: str) -> MemoryRecord | None:
        found = self.memory.list(self._scope(namespace), where={"@key": _name(namespace, key)}, limit=1)
        return found[0] if found else None

    def _put(self, op: PutOp) -> None:
        scope = self._scope(op.namespace)
        # What is hidden by its time to live holds its key still.
        there = self.memory.bank.page(scope, where={"@key": _name(op.namespace, op.key)}, limit=1)
        held = there[0] if there else None
        if op.value is None:
            if held is not None:
                self.memory.delete(held.id, scope)
            return
        prefixes = [_path(op.namespace[: n + 1]) for n in range(len(op.namespace))]
        about = {"namespace": list(op.namespace), "under": prefixes, "key": op.key, "value": dict(op.value)}
        text = _text(op.value, op.index)
        expires = None if op.ttl is None else timedelta(minutes=op.ttl)
        if held is not None and op.ttl is None and held.expires is not None:
            self.memory.delete(held.id, scope)  # without a time to live it lives on
            held = None
        if held is None:
            self.memory.add(text, scope, metadata=about, key=_name(op.namespace, op.key), expires=expires)
        else:
            self.memory.update(held.id, text, scope, metadata=about, expires=expires)

    def _search(self, op: SearchOp) -> list[SearchItem]:
        scope = self._scope(op.namespace_prefix)
        tests: list[dict[str, Any]] = [{"under": _path(op.namespace_prefix)}]
        for name, wanted in (op.filter or {}).items():
            tests += _tests(f"value.{name}", wanted)
        where, last = {"and": tests}, op.offset + op.limit
        if op.query is None:
            records = self.memory.list(scope, where=where)[op.offset : last]
            return [SearchItem(**_about(record), score=None) for record in records]
        hits = self.memory.search(op.query, scope, k=last, where=where)[op.offset :]
        return [SearchItem(**_about(hit.record), score=hit.score) for hit in hits]

    def _namespaces(self, op: ListNamespacesOp) -> list[Namespace]:
        found: dict[Namespace, None] = {}
        for user in self.memory.bank.snapshot().users():
            for record in self.memory.list(Scope(user, AGENT)):
                if "namespace" not in record.payload:
                    continue  # not of a store
                namespace = tuple(record.payload["namespace"])
                if all(_matches(condition, namespace) for condition in op.match_conditions or ()):
                    found[namespace[: op.max_depth]] = None
        return sorted(found)[op.offset : op.offset + op.limit]


def _name(namespace: Namespace, key: str) -> str:
    return json.dumps([*namespace, key], ensure_ascii=False)


def _path(namespace: Namespace) -> str:
    return json.dumps(namespace, ensure_ascii=False)


def _about(record: MemoryRecord) -> dict[str, Any]:
    told = record.payload
    return {
        "namespace": tuple(told["namespace"]), "key": told["key"], "value": dict(told["value"]),
        "created_at": record.created, "updated_at": record.updated,
    }  # fmt: skip


def _text(value: Mapping[str, Any], index: Any) -> str:
    """What an item is found by: fields that it names, else its text, else all of it."""
    if isinstance(index, list):
        found = [value[field] for field in index if field in value]
    else:
        found = [value["text"]] if isinstance(value.get("text"), str) else [value]
    said = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False, default=str) for one in found]
    return "\n".join(said).strip() or json.dumps(value, ensure_ascii=False, default=str)


def _tests(field: str, wanted: Any) -> list[dict[str, Any]]:
    """What a field of a value has to be; of an object each part, of a list each element."""
    if isinstance(wanted, list | tuple):
        return [test for one in wanted for test in _tests(field, one)]
    if not isinstance(wanted, Mapping):
        return [{field: wanted}]
    if not any(str(op).startswith("$") for op in wanted):
        return [test for name, one in wanted.items() for test in _tests(f"{field}.{name}", one)]
    unknown = [op for op in wanted if op not in _OPERATORS]
    if unknown:
        raise ArgumentError(f"a filter has the operator {unknown[0]!r}; expected one of {', '.join(_OPERATORS)}")
    return [{field: {_OPERATORS[op]: value}} for op, value in wanted.items()]


def _matches(condition: MatchCondition, namespace: Namespace) -> bool:
    path = tuple(condition.path)
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[-len(path) :]
    return len(part) == len(path) and all(asked in ("*", is_) for asked, is_ in zip(path, part, strict=True))
