"""A memory as it stood at any commit of one of its users."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from memorist.errors import ArgumentError, BankError
from memorist.library.memory import Memory
from memorist.memory.bank import Hit
from memorist.memory.fusion import MODES, weights_for
from memorist.memory.record import Change, MemoryRecord, Scope

PAGE = 100
"""Records on a page."""
USERS = 200
"""Users that a list shows at most."""


class Bank:
    """What there is to see of a memory.

    Args:
        memory: opened to be read only.
        name: what pages call it.
    """

    def __init__(self, memory: Memory, name: str) -> None:
        self.memory, self.name = memory, name
        self._latest: tuple[tuple[str, int], list[Change]] | None = None

    def users(self, like: str = "") -> dict[str, Any]:
        """Users that have live records and some letters in their name; `all` is how many there are."""
        everyone = self.memory.bank.snapshot().users()
        wanted = like.casefold()
        found = [user for user in everyone if wanted in user.casefold()]
        return {"users": found[:USERS], "found": len(found), "all": len(everyone)}

    def commits(self, user: str) -> dict[str, Any]:
        """The commits that changed a user's records, oldest first."""
        changes = self._changes(user)
        kinds: dict[int, Counter[str]] = {}
        for change in changes:
            kinds.setdefault(change.commit, Counter())[str(change.kind)] += 1
        times = self._times(user, list(kinds))
        return {
            "user": user,
            "commits": [{"number": n, "at": times.get(n), "kinds": dict(count)} for n, count in kinds.items()],
            "modes": list(MODES),
        }

    def moment(self, user: str, commit: int, page: int = 0) -> dict[str, Any]:
        """A user's records as they stood at a commit, a page of them, and what that commit changed.

        Raises:
            BankError: there is no such commit.
        """
        scope = Scope(user)
        records = self.memory.bank.page(scope, as_of=self._need(commit))
        first = max(0, page) * PAGE
        changed = [change for change in self._changes(user) if change.commit == commit]
        touched = {change.record_id: str(change.kind) for change in changed}
        return {
            "commit": commit, "all": len(records), "page": page, "pages": max(1, -(-len(records) // PAGE)),
            "records": [
                record_shown(one) | {"changed": touched.get(one.id)} for one in records[first : first + PAGE]
            ],
            "changes": [change_shown(one) for one in changed],
        }  # fmt: skip

    def history(self, user: str, record_id: str) -> list[dict[str, Any]]:
        """Every change of a record, oldest first."""
        changes = self.memory.history(record_id, Scope(user))
        times = self._times(user, [change.commit for change in changes])
        return [change_shown(one) | {"at": times.get(one.commit)} for one in changes]

    def search(self, user: str, query: str, mode: str, commit: int | None, k: int = 20) -> dict[str, Any]:
        """What a search finds, at a commit or now, with the parts of each score and what each part weighs."""
        if mode not in MODES:
            raise ArgumentError(f"mode is {mode!r}; expected one of {', '.join(MODES)}")
        as_of = None if commit is None else self._need(commit)
        hits = self.memory.search(query, Scope(user), k=k, mode=mode, as_of=as_of, explain=True)
        weights = weights_for(query, self.memory.bank.embedder) if mode == "fused" else {}
        return {"hits": [hit_shown(one) for one in hits], "weights": dict(weights), "mode": mode}

    def _need(self, commit: int) -> int:
        newest = self.memory.bank.commit
        if not 0 <= commit <= newest:
            raise BankError(f"commit {commit} does not exist; this memory has commits 0 to {newest}")
        return commit

    def _changes(self, user: str) -> list[Change]:
        """A user's changes; those of the user looked at last are kept until something is committed."""
        key, latest = (user, self.memory.bank.commit), self._latest
        if latest is None or latest[0] != key:
            latest = self._latest = (key, self.memory.bank.changes(Scope(user)))
        return latest[1]

    def _times(self, user: str, commits: Sequence[int]) -> dict[int, str]:
        """When commits were made, by the clock of who made them."""
        if not commits:
            return {}
        wanted, found = set(commits), self.memory.bank.times(min(commits), max(commits))
        return {number: at for number, at in found.items() if number in wanted}


def record_shown(record: MemoryRecord) -> dict[str, Any]:
    """A record with all that is kept of it."""
    return record.to_json()


def change_shown(change: Change) -> dict[str, Any]:
    """An operation: what was before and after it, and why."""
    return {
        "commit": change.commit, "kind": str(change.kind), "id": change.record_id, "reason": change.reason,
        "before": None if change.before is None else record_shown(change.before),
        "after": None if change.after is None else record_shown(change.after),
    }  # fmt: skip


def hit_shown(hit: Hit) -> dict[str, Any]:
    """A record that was found, with the parts of its score."""
    return {"record": record_shown(hit.record), "score": hit.score, "parts": dict(hit.parts)}
