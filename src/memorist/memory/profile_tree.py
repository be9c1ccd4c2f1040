"""A profile of a person as a tree of short texts: a schema over keyed records of a bank (arXiv 2601.05171).

Each leaf that holds a text is a record whose key is the leaf's path: its history, sources and erasure are the bank's,
and a version of the tree is a commit. Edits pass a gate: each has a code, and none can write over a branch.
"""

from __future__ import annotations

import builtins
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from memorist.errors import BankError, need_known
from memorist.memory.bank import MemoryBank, need_scope
from memorist.memory.profile_edits import Edit
from memorist.memory.profile_schema import Schema, persona_schema, shared_parts
from memorist.memory.profile_text import compressed, retention, token_f1
from memorist.memory.record import MAX_TEXT, Change, MemoryRecord, Operation, Scope, clean_text

POLICIES = ("closed", "extend", "snap")
"""What is done about a path that the schema does not have: it is refused, made below a known branch, or taken for the
leaf that is most like it."""
GUARDS = ("off", "warn", "concat")
"""What is done where an update drops most of what was known: nothing, told, or both texts are kept."""
DEEPEST, MOST = 6, 64
"""Parts of a path that extends the schema, and how many such leaves there may be."""
KEPT = 0.5
"""Share of the old text's telling words below which an update counts as losing it."""
SNAPS = 0.5
"""F1 of the last names' words from which on a leaf may be meant."""
_NEW_PART = re.compile(r"[A-Z0-9][A-Za-z0-9_]{0,63}")


class Gate(StrEnum):
    """What became of an edit."""

    NOOP = "noop"
    SAME = "noop:same"
    MISSING = "noop:missing"
    ADDED = "added"
    UPDATED = "updated"
    DELETED = "deleted"
    EXTENDED = "extended"
    TO_ADD = "coerced:update->add"
    TO_UPDATE = "coerced:add->update"
    UNDER_LEAF = "reject:under_leaf"
    BRANCH = "reject:branch_write"
    EMPTY = "reject:empty"
    TOO_LONG = "reject:too_long"
    UNKNOWN_PATH = "reject:unknown_path"
    UNKNOWN_KIND = "reject:unknown_kind"
    REFUSED = "reject:refused"
    """By the bank: a guard said no, or somebody else has changed the leaf meanwhile."""

    @property
    def rejected(self) -> bool:
        """Whether it was refused."""
        return self.startswith("reject:")


@dataclass(frozen=True, slots=True)
class Edited:
    """What became of one edit.

    path: the leaf that it reached, another than its own where it was snapped. before, after: the leaf's text.
    compressed: it was over its budget. lost: it dropped most of what was known.
    """

    edit: Edit
    code: Gate
    path: str = ""
    before: str = ""
    after: str = ""
    compressed: bool = False
    lost: bool = False

    @property
    def snapped(self) -> bool:
        """Whether another leaf was taken for its own."""
        return bool(self.path) and self.path != self.edit.path


@dataclass(frozen=True)
class ProfileTree:
    """A person's tree in a bank.

    Args:
        bank: where it lives.
        scope: whose; exactly, since keys are unique there.
        schema: its trunk; None for the released one of 305 leaves.
        policy: of paths that the schema does not have (`POLICIES`).
        budget: words of a leaf.
        guard: against updates that drop what was known (`GUARDS`).
    """

    bank: MemoryBank
    scope: Scope
    schema: Schema = field(default_factory=persona_schema)
    policy: str = "closed"
    budget: int = 64
    guard: str = "warn"

    def __post_init__(self) -> None:
        need_scope(self.scope)
        need_known("policy", self.policy, POLICIES)
        need_known("guard", self.guard, GUARDS)

    # Reading.

    def records(self, *, as_of: int | datetime | None = None) -> dict[str, MemoryRecord]:
        """Leaves that hold something by path: those of the schema in its order, then those that extend it. A record's
        payload says how often it was told (`support`).

        Args:
            as_of: the tree as it stood at a commit, or as it held at a time.

        Raises:
            BankError: a time is asked of a bank that knows commits alone (`ScratchBank`).
        """
        start = len(self._key(""))
        live = (one for one in self._held(as_of) if self._ours(one))
        held = {str(one.key)[start:]: one for one in live}
        order = {path: i for i, path in enumerate(self.schema.leaves)}
        return dict(sorted(held.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))

    def _held(self, as_of: int | datetime | None) -> Sequence[MemoryRecord]:
        if not isinstance(as_of, datetime):
            return self.bank.list(self.scope, as_of=as_of)
        page = getattr(self.bank, "page", None)
        if page is None:
            raise BankError(f"{type(self.bank).__name__} knows no times; expected a commit, or a bank in a file")
        found: Sequence[MemoryRecord] = page(self.scope, as_of=as_of, now=as_of)
        return found

    def leaves(self, *, as_of: int | datetime | None = None) -> dict[str, str]:
        """The texts by path."""
        return {path: record.text for path, record in self.records(as_of=as_of).items()}

    def nested(self, *, as_of: int | datetime | None = None) -> dict[str, Any]:
        """What holds something, as nested objects; {} where nothing does."""
        found: dict[str, Any] = {}
        for path, text in self.leaves(as_of=as_of).items():
            *above, last = path.split(".")
            at = found
            for part in above:
                at = at.setdefault(part, {})
            at[last] = text
        return found

    def view(self, *, as_of: int | datetime | None = None) -> str:
        """The pruned tree as indented JSON; "" where it holds nothing."""
        found = self.nested(as_of=as_of)
        return json.dumps(found, ensure_ascii=False, indent=1) if found else ""

    def history(self, path: str) -> builtins.list[Change]:
        """All changes of a leaf, oldest first, also before it was deleted and came again."""
        return [change for change in self._changes() if change.record.key == self._key(path)]

    def versions(self) -> builtins.list[int]:
        """Commits that changed the tree, oldest first."""
        return list(dict.fromkeys(change.commit for change in self._changes()))

    # Writing.

    def apply(self, edits: Sequence[Edit], *, at: datetime, source: Sequence[str] = ()) -> builtins.list[Edited]:
        """Do what edits say, left to right, as one commit; one outcome each.

        Raises:
            ScopeError, BankError: see `MemoryBank.apply`.
        """
        gate = _Gate(self, self.records())
        done = [gate.judge(edit) for edit in edits]
        operations = gate.operations()
        results = self.bank.apply(operations, self.scope, at=at, source=source) if operations else []
        refused = {str(r.operation.key)[len(self._key("")) :] for r in results if not r.code.accepted}
        return [
            one
            if one.path not in refused or one.code.rejected
            else Edited(one.edit, Gate.REFUSED, one.path, one.before)
            for one in done
        ]

    def undo(self, version: int, *, at: datetime) -> builtins.list[Edited]:
        """Put the leaves that a commit changed back as they were before it, as a commit of its own."""
        before = self.leaves(as_of=max(0, version - 1))
        start = len(self._key(""))
        paths = dict.fromkeys(str(c.record.key)[start:] for c in self._changes() if c.commit == version)
        edits = [Edit("UPDATE", path, before[path]) if path in before else Edit("DELETE", path) for path in paths]
        free = ProfileTree(self.bank, self.scope, self.schema, "extend", self.budget, "off")
        return free.apply(edits, at=at)

    def _key(self, path: str) -> str:
        return f"{self.schema.name}:{path}"

    def _ours(self, record: MemoryRecord) -> bool:
        return record.scope == self.scope and record.key is not None and record.key.startswith(self._key(""))

    def _changes(self) -> builtins.list[Change]:
        return [change for change in self.bank.changes(self.scope) if self._ours(change.record)]


class _Gate:
    """Judges edits one after the other, each in the state that those before it left."""

    def __init__(self, tree: ProfileTree, records: Mapping[str, MemoryRecord]) -> None:
        self.tree, self.before = tree, records
        self.texts = {path: record.text for path, record in records.items()}
        self.support = {path: int(record.payload.get("support", 1)) for path, record in records.items()}

    def judge(self, edit: Edit) -> Edited:
        """What becomes of one, and the state after it."""
        if edit.kind == "NO_OP":
            return Edited(edit, Gate.NOOP)
        if edit.kind not in ("ADD", "UPDATE", "DELETE"):
            return Edited(edit, Gate.UNKNOWN_KIND)
        path, extends = self._place(edit.path)
        if isinstance(path, Gate):
            missing = edit.kind == "DELETE" and path is Gate.UNKNOWN_PATH
            return Edited(edit, Gate.MISSING if missing and self.tree.policy == "extend" else path)
        old = self.texts.get(path, "")
        if edit.kind == "DELETE":
            self.texts.pop(path, None)
            return Edited(edit, Gate.DELETED if old else Gate.MISSING, path, old)
        value = clean_text(edit.value).strip()
        if not value:
            return Edited(edit, Gate.EMPTY, path, old, old)
        if len(value) > MAX_TEXT:
            return Edited(edit, Gate.TOO_LONG, path, old, old)
        return self._put(edit, path, old, value, extends)

    def _put(self, edit: Edit, path: str, old: str, value: str, extends: bool) -> Edited:
        lost = bool(old) and self.tree.guard != "off" and retention(old, value) < KEPT
        value = f"{old}; {value}" if lost and self.tree.guard == "concat" else value
        text = compressed(value, self.tree.budget)
        if text == old:
            self.support[path] += 1
            return Edited(edit, Gate.SAME, path, old, old)
        if extends and not old:
            code = Gate.EXTENDED
        elif old:
            code = Gate.UPDATED if edit.kind == "UPDATE" else Gate.TO_UPDATE
        else:
            code = Gate.ADDED if edit.kind == "ADD" else Gate.TO_ADD
        self.texts[path] = text
        self.support[path] = self.support.get(path, 0) + 1 if old else 1
        return Edited(edit, code, path, old, text, compressed=len(value.split()) > self.tree.budget, lost=lost)

    def _place(self, path: str) -> tuple[str | Gate, bool]:
        """The leaf that a path means and whether it extends the schema, or why it means none."""
        schema, extended = self.tree.schema, {one for one in self.texts if one not in self.tree.schema.known}
        parts = path.split(".")
        above = [".".join(parts[:i]) for i in range(1, len(parts))]
        if any(one in schema.known or one in extended for one in above):
            return Gate.UNDER_LEAF, False
        if path in schema.inner or any(one.startswith(f"{path}.") for one in extended):
            return Gate.BRANCH, False
        if path in schema.known or path in extended:
            return path, path not in schema.known
        if self.tree.policy == "snap":
            return self._snapped(path), False
        if self.tree.policy == "extend" and len(parts) >= 3 and above[1] in schema.inner and len(parts) <= DEEPEST:
            new = [part for part, upto in zip(parts, [*above, path], strict=True) if upto not in schema.inner]
            if all(_NEW_PART.fullmatch(part) for part in new) and len(extended) < MOST:
                return path, True
        return Gate.UNKNOWN_PATH, False

    def _snapped(self, path: str) -> str | Gate:
        """Of leaves whose last name is like enough the one with most of the beginning in common, then the likest."""

        def words(name: str) -> str:
            return name.replace("_", " ")

        best: tuple[tuple[int, float], str] | None = None
        for leaf in self.tree.schema.leaves:
            like = token_f1(words(path.rpartition(".")[2]), words(leaf.rpartition(".")[2]))
            close = shared_parts(path, leaf), like
            if like >= SNAPS and (best is None or close > best[0]):
                best = close, leaf
        return best[1] if best else Gate.UNKNOWN_PATH

    def operations(self) -> list[Operation]:
        """What the bank has to do for all of it: one operation for each leaf that ends otherwise than it was."""
        found = []
        for path in dict.fromkeys([*self.before, *self.texts]):
            record, text = self.before.get(path), self.texts.get(path)
            key = self.tree._key(path)
            if record is not None and text is None:
                found.append(Operation("DELETE", id=record.id, key=key))
            elif text is not None:
                payload = dict(record.payload if record else {}) | {"support": self.support[path]}
                kind = "ADD" if record is None else "UPDATE"
                if record is None or text != record.text or payload != dict(record.payload):
                    found.append(Operation(kind, text, record.id if record else None, key, payload))
        return found
