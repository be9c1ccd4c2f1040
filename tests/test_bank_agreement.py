"""Any sequence of calls gives the same with every kind of bank, also where the embedder fails."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from banks import ANNA, AT, DURABLE, SCOPES, add, reopened, texts
from memorist.errors import BankError
from memorist.memory.bank import MemoryBank
from memorist.memory.embed import HashedEmbedder
from memorist.memory.record import MemoryRecord, Operation, Scope
from memorist.memory.scratch import ScratchBank
from memorist.memory.sqlite import SQLiteBank


class Failing(HashedEmbedder):
    """An embedder that can be told to fail, or to give another shape than it promises."""

    trouble = ""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        if self.trouble == "raise":
            raise ConnectionError("no answer")
        vectors = super().embed(texts)
        return vectors[:, :-1] if self.trouble == "shape" else vectors


@pytest.mark.parametrize("durable", [True, False])
def test_an_embedder_that_fails_leaves_the_bank_as_it_was(tmp_path: Path, durable: bool) -> None:
    embedder = Failing()
    bank: MemoryBank = SQLiteBank(tmp_path / "b.db", embedder=embedder) if durable else ScratchBank(embedder=embedder)
    bank.apply([add("one")], ANNA, at=AT)
    for trouble, error in (("raise", ConnectionError), ("shape", BankError)):
        embedder.trouble = trouble
        with pytest.raises(error):
            bank.apply([add("two"), add("three")], ANNA, at=AT)
        assert (bank.commit, texts(bank.list(ANNA))) == (1, ["one"])
    embedder.trouble = ""
    bank.apply([add("four")], ANNA, at=AT)
    assert texts(bank.list(ANNA)) == ["one", "four"]
    if isinstance(bank, SQLiteBank):
        bank.close()


# Agreement: any sequence of calls gives the same everywhere.

WORDS = ["dog", "Buddy", "piano", "Paris", "same", "\0", "\ud800", "日本"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join)
OPERATIONS = st.builds(
    Operation,
    st.sampled_from(["ADD", "ADD", "ADD", "UPDATE", "UPDATE", "DELETE", "NOOP", "JUNK"]),
    TEXTS,
    st.integers(-1, 8).map(str),
    st.sampled_from([None, None, "k1", "k2\0"]),
    st.sampled_from([None, None, {"a": 1}, {"b": [1, "x"]}, {"c": float("inf")}]),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["apply"] * 8 + ["erase", "fork"]),
        st.sampled_from(SCOPES[:4] + SCOPES[9:11]),
        st.lists(OPERATIONS, max_size=4),
    ),
    max_size=14,
)


def pointed(operation: Operation, records: Sequence[MemoryRecord]) -> Operation:
    """The operation with its small number replaced by the id of that record, as an agent does it."""
    number = int(operation.id or 0)
    real = records[number].id if 0 <= number < len(records) else f"none-{number}"
    return Operation(operation.kind, operation.text, real, operation.key, operation.payload)


def view(bank: MemoryBank, pasts: Sequence[int]) -> list[object]:
    """Everything that a bank shows."""
    shown: list[object] = [bank.commit]
    for scope in (Scope("anna"), Scope("anna", "x"), Scope("ben")):
        shown += [bank.list(scope), bank.changes(scope), list(bank.export(scope))]
        for query in ("dog Buddy", "same", "?"):
            shown.append(bank.search(query, scope, k=3))
        for past in pasts:
            shown.append((bank.list(scope, as_of=past), bank.search("Paris", scope, k=4, as_of=past)))
    return shown


@pytest.mark.parametrize("kind", DURABLE)
@settings(max_examples=30, deadline=None)
@given(steps=STEPS)
def test_a_stored_bank_and_scratch_ones_agree_on_any_sequence(
    kind: str,
    steps: list[tuple[str, Scope, list[Operation]]],
) -> None:
    with ExitStack() as stack:
        durable = DURABLE[kind](stack)
        banks: list[MemoryBank] = [durable, ScratchBank(), ScratchBank(ScratchBank().snapshot())]
        oldest = 0
        for at, (what, scope, operations) in enumerate(steps):
            if what == "erase":
                assert len({bank.erase(scope) for bank in banks}) == 1
            elif what == "fork":
                # The durable bank goes on, the others are replaced by overlays of it and of themselves.
                banks = [durable, durable.fork(), ScratchBank(banks[1].snapshot())]
                oldest = durable.commit
            else:
                known = durable.list(Scope(scope.user))
                given = [pointed(operation, known) for operation in operations]
                results = [bank.apply(given, scope, at=AT + timedelta(at)) for bank in banks]
                assert results[0] == results[1] == results[2]
            pasts = range(oldest, durable.commit + 1)[-3:]
            first, second, third = (view(bank, pasts) for bank in banks)
            assert first == second == third
        again = stack.enter_context(reopened(durable))
        assert view(again, range(durable.commit + 1)) == view(durable, range(durable.commit + 1))
