"""What is particular to the bank in PostgreSQL: whose rows are seen, sharing, connections that break, its index."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from banks import ANNA, AT, add, postgres_database, postgres_schema, postgres_url, texts
from memorist import Memory
from memorist.cli import app
from memorist.errors import BankError, ScopeError
from memorist.memory import postgres, postgres_server
from memorist.memory.embed import HashedEmbedder
from memorist.memory.postgres import PostgresBank
from memorist.memory.postgres_words import ordered, translated
from memorist.memory.record import Operation, Scope
from memorist.serve.keys import add_key
from test_serve import running

BEN = Scope("ben")


@pytest.fixture
def bank() -> Iterator[PostgresBank]:
    with PostgresBank(postgres_url(), schema=postgres_schema()) as opened:
        yield opened


def raw(bank: PostgresBank) -> psycopg.Connection[Any]:
    """A connection as anybody makes it, who has not read our code."""
    return psycopg.connect(postgres_url(), autocommit=True, options=f"-c search_path={bank.schema},public")


TENANTS = ("versions", "vectors", "changes", "words", "facets", "users")


def test_a_transaction_about_one_user_sees_no_row_of_others_whatever_it_asks_for(bank: PostgresBank) -> None:
    bank.apply([add("Anna has a dog", payload={"a": 1})], ANNA, at=AT)
    bank.apply([add("Ben has a cat", payload={"b": 1})], BEN, at=AT)
    counts = {}
    for user in ("anna", "nobody"):
        with bank._tables.moment(user) as (db, _):
            counts[user] = [db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TENANTS]
            assert all("Ben" not in text for (text,) in db.execute("SELECT text FROM versions"))
    with bank._tables.reading() as db:
        everything = [db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TENANTS]
    assert counts["nobody"] == [0] * len(TENANTS)
    assert all(0 < mine < every for mine, every in zip(counts["anna"], everything, strict=True))


def test_a_transaction_about_one_user_writes_no_row_of_others(bank: PostgresBank) -> None:
    bank.apply([add("Ben has a cat")], BEN, at=AT)
    (record,) = bank.list(BEN)
    with pytest.raises(BankError, match="row-level security"), bank._tables.writing() as db:
        bank._tables.narrow(db, "anna")
        db.execute("INSERT INTO logs VALUES (?, ?, 0)", ("/x", "ben"))
    with bank._tables.writing() as db:
        bank._tables.narrow(db, "anna")
        db.execute("DELETE FROM versions")
        db.execute("UPDATE versions SET text = ''")
    assert bank.get(record.id, BEN) == record


def test_who_says_nothing_sees_nothing(bank: PostgresBank) -> None:
    bank.apply([add("Anna has a dog")], ANNA, at=AT)
    with raw(bank) as db:
        assert all(db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,) for table in TENANTS)


def test_whom_the_server_holds_to_no_security_is_told(bank: PostgresBank, caplog: pytest.LogCaptureFixture) -> None:
    assert not bank.bypasses_row_security and not caplog.text
    owner = postgres_url().replace("keeper", "postgres")
    with PostgresBank(owner, schema=postgres_schema()) as superuser:
        assert superuser.bypasses_row_security and "no row-level security" in caplog.text


def test_migrations_run_once_and_are_recorded(bank: PostgresBank) -> None:
    with PostgresBank(postgres_url(), schema=bank.schema), bank._tables.reading() as db:
        found = db.execute("SELECT number, name FROM migrations ORDER BY number").fetchall()
    assert found == [(1, "create_tables"), (2, "secure_rows"), (3, "add_jobs")]


def test_tables_of_a_newer_version_are_refused(bank: PostgresBank) -> None:
    with bank._tables.writing() as db:
        db.execute("INSERT INTO migrations VALUES (99, 'from_the_future')")
    with pytest.raises(BankError, match="newer version of Memorist"):
        PostgresBank(postgres_url(), schema=bank.schema)


def test_another_embedder_is_refused(bank: PostgresBank) -> None:
    with pytest.raises(BankError, match="made with embedder"):
        PostgresBank(postgres_url(), schema=bank.schema, embedder=HashedEmbedder(size=64))


def test_read_only(bank: PostgresBank) -> None:
    bank.apply([add("one")], ANNA, at=AT)
    with PostgresBank(postgres_url(), schema=bank.schema, read_only=True) as fixed:
        assert texts(fixed.list(ANNA)) == ["one"]
        with pytest.raises(BankError, match="read_only=True"):
            fixed.apply([add("two")], ANNA, at=AT)
    with pytest.raises(BankError, match="there is no bank in this database"):
        PostgresBank(postgres_url(), schema=postgres_schema(), read_only=True)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://keeper:hush@127.0.0.1:1/bank", "cannot be reached"),
        ("nonsense", "none of PostgreSQL's"),
    ],
)
def test_what_cannot_be_opened_is_told_without_the_password(url: str, said: str) -> None:
    with pytest.raises(BankError, match=said) as raised:
        PostgresBank(url)
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize("schema", ["", 'a"; DROP TABLE x; --', "A", "1a", "a" * 64])
def test_a_schema_is_a_plain_name(schema: str) -> None:
    with pytest.raises(BankError, match="expected small letters"):
        PostgresBank(postgres_url(), schema=schema)


def test_a_database_without_pgvector_is_told_what_to_do() -> None:
    owner = postgres_url().replace("keeper", "postgres")
    with psycopg.connect(owner, autocommit=True) as db:
        db.execute("CREATE DATABASE bare OWNER keeper")
    with pytest.raises(BankError, match="let a superuser say CREATE EXTENSION vector"):
        PostgresBank(postgres_url().replace("/bank?", "/bare?"))


def test_pgvector_may_be_in_a_schema_of_its_own() -> None:
    owner = postgres_url().replace("keeper", "postgres")
    with psycopg.connect(owner, autocommit=True) as db:
        db.execute("CREATE DATABASE apart OWNER keeper")
    with psycopg.connect(owner.replace("/bank?", "/apart?"), autocommit=True) as db:
        db.execute('CREATE SCHEMA "Its own"')
        db.execute('CREATE EXTENSION vector SCHEMA "Its own"')
        db.execute('GRANT USAGE ON SCHEMA "Its own" TO keeper')
    with PostgresBank(postgres_url().replace("/bank?", "/apart?"), schema="kept") as bank:
        bank.apply([add("Anna likes tea")], ANNA, at=AT)
        assert [hit.record.text for hit in bank.search("tea", ANNA, k=1)] == ["Anna likes tea"]


def test_closed(bank: PostgresBank) -> None:
    bank.close()
    bank.close()
    with pytest.raises(BankError, match="closed"):
        bank.list(ANNA)


def test_a_connection_that_broke_is_made_anew(bank: PostgresBank) -> None:
    bank.apply([add("one")], ANNA, at=AT)
    with bank._tables.reading() as db:
        (pid,) = db.execute("SELECT pg_backend_pid()").fetchone()
    with psycopg.connect(postgres_url().replace("keeper", "postgres"), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", (pid,))
    with pytest.raises(BankError):
        bank.apply([add("lost with the connection, and said so")], ANNA, at=AT)
    bank.apply([add("two")], ANNA, at=AT)
    assert texts(bank.list(ANNA)) == ["one", "two"]
    assert [hit.record.text for hit in bank.find("two", ANNA, k=1)] == ["two"]
    with bank._tables.moment("anna") as (db, _):
        assert db.execute("SELECT count(*) FROM versions").fetchone() == (2,)


def test_another_bank_s_commits_are_found(bank: PostgresBank) -> None:
    with PostgresBank(postgres_url(), schema=bank.schema) as two:
        bank.apply([add("a dog")], ANNA, at=AT)
        (record,) = two.list(ANNA)
        bank.apply([Operation("UPDATE", "a dog and a cat", id=record.id), add("a dogfish")], ANNA, at=AT)
        assert {hit.record.text for hit in two.find("dog", ANNA)} == {"a dog and a cat", "a dogfish"}
        bank.erase(ANNA)
        assert two.find("dog", ANNA) == two.list(ANNA) == []


def need_one_after_another(bank: PostgresBank) -> None:
    """Three write at once; each finds its own in order, and every commit is there once."""

    def write(name: str) -> None:
        with PostgresBank(postgres_url(), schema=bank.schema) as own:
            for number in range(15):
                own.apply([add(f"{name} {number}")], Scope(name), at=AT)

    threads = [Thread(target=write, args=(name,)) for name in ("anna", "ben", "cleo")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("anna", "ben", "cleo"):
        assert texts(bank.list(Scope(name))) == [f"{name} {number}" for number in range(15)]


def test_writers_at_once_make_commits_one_after_another(bank: PostgresBank) -> None:
    need_one_after_another(bank)
    assert bank.commit == 45


def test_a_name_that_no_index_holds_is_refused_and_nothing_is_lost(bank: PostgresBank) -> None:
    long = Scope("".join(chr(0x4E00 + n) for n in range(5000)))
    with pytest.raises(ScopeError, match="2600 at most"):
        bank.apply([add("one")], long, at=AT)
    others = Scope("\U0001f600" * 512, "\U0001f600" * 512, "\U0001f600" * 512)
    bank.apply([add("one", key="k" * 3000, payload={"\U0001f600" * 400: "\U0001f600" * 400})], others, at=AT)
    assert texts(bank.list(others)) == ["one"]
    bank.erase(others)
    assert bank.erase(ANNA, ids=["a\0b", "\ud800"]) == 0
    bank.apply([add("one")], ANNA, at=AT)
    assert texts(bank.list(ANNA)) == ["one"]


def test_erased_rows_are_cleared_from_the_pages(bank: PostgresBank) -> None:
    bank.apply([add("a dog called Xanthippus")], ANNA, at=AT)
    bank.erase(ANNA)
    assert bank.settle() == ()
    with bank._tables.reading() as db:
        query = "SELECT pg_stat_force_next_flush(), coalesce(sum(n_dead_tup), 0) FROM pg_stat_user_tables WHERE "
        query += "schemaname = current_schema() AND relname IN ('versions', 'vectors', 'changes', 'words', 'facets')"
        assert int(db.execute(query).fetchone()[1]) == 0


def test_words_of_another_version_are_read_anew_and_vectors_stay_their_owner_s(bank: PostgresBank) -> None:
    bank.apply([add("Ben has a cat")], BEN, at=AT)
    bank.apply([add("Anna has a dog"), add("Anna has a cat")], ANNA, at=AT)
    with bank._tables.writing() as db:
        db.execute("UPDATE searchable SET words = 1")
    with PostgresBank(postgres_url(), schema=bank.schema) as again:
        assert len(again.list(ANNA)) == len(again.find("Anna", ANNA, mode="vector")) == 2
        assert [hit.record.text for hit in again.find("dog", ANNA, mode="lexical")] == ["Anna has a dog"]
        again.erase(ANNA)
        again.erase(BEN)
        with again._tables.reading() as db:
            assert db.execute("SELECT count(*) FROM vectors").fetchone() == (0,)


@pytest.mark.parametrize("role", ["keeper", "postgres"])
def test_who_still_reads_what_was_erased_is_named(bank: PostgresBank, role: str) -> None:
    bank.apply([add("a dog called Xanthippus")], ANNA, at=AT)
    with psycopg.connect(postgres_url().replace("keeper", role), application_name="reader") as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT 1 FROM pg_class LIMIT 1")
        bank.erase(ANNA)
        (who,) = bank.settle(0.2)
        assert "reader" in who
        other.rollback()
        assert bank.settle(5) == ()
    assert bank._tables.pending() == []


def test_a_table_that_is_busy_makes_an_erasure_wait_and_stops_nobody(bank: PostgresBank) -> None:
    bank.apply([add("one")], ANNA, at=AT)
    with raw(bank) as other, other.transaction():
        other.execute("LOCK TABLE versions IN SHARE UPDATE EXCLUSIVE MODE")  # as whoever makes an index
        assert bank.erase(ANNA) == 1
        assert bank.settle(0) != ()
        with PostgresBank(postgres_url(), schema=bank.schema) as opened:
            opened.apply([add("two")], ANNA, at=AT)
    assert bank.settle(5) == ()


def test_who_reads_does_not_wait_for_who_waits_to_write(bank: PostgresBank) -> None:
    bank.apply([add("one")], ANNA, at=AT)
    with raw(bank) as other, other.transaction():
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended(current_schema(), 0))")
        writer = Thread(target=lambda: bank.apply([add("two")], ANNA, at=AT))
        writer.start()
        time.sleep(0.3)
        began = time.monotonic()
        assert len(bank.find("one", ANNA)) == 1
        assert time.monotonic() - began < 0.25, "it did not wait until the other had ended"
    writer.join(10)
    assert texts(bank.list(ANNA)) == ["one", "two"]


def test_writers_agree_whatever_the_database_s_own_isolation_is(bank: PostgresBank) -> None:
    owner = postgres_url().replace("keeper", "postgres")
    with psycopg.connect(owner, autocommit=True) as db:
        db.execute("ALTER ROLE keeper SET default_transaction_isolation = 'repeatable read'")
    try:
        need_one_after_another(bank)
        assert bank.commit == 45
    finally:
        with psycopg.connect(owner, autocommit=True) as db:
            db.execute("ALTER ROLE keeper RESET default_transaction_isolation")


def test_a_password_is_in_no_error(bank: PostgresBank) -> None:
    for url in ("postgresql://u:hush@[h/db", "postgresql://u:hu/sh@127.0.0.1:1/db"):
        with pytest.raises(BankError) as raised:
            PostgresBank(url)
        told = "".join(traceback.format_exception(raised.value))
        assert "hush" not in told and "sh@" not in told


class TestIndex:
    def filled(self, bank: PostgresBank) -> None:
        rng = np.random.default_rng(0)
        words = [f"word{n}" for n in range(60)]
        some = [" ".join(rng.choice(words, 6)) for _ in range(300)]
        bank.apply([add(text) for text in some], ANNA, at=AT)
        bank.apply([add("somebody else's word1 word2")], BEN, at=AT)

    def test_who_has_many_records_gets_an_index_and_finds_the_same(
        self, bank: PostgresBank, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres, "BIG", 100)
        self.filled(bank)
        with bank._tables.moment("anna") as (db, newest):
            (number,) = db.execute("SELECT number FROM users WHERE name = 'anna'").fetchone()
            assert postgres_server.has_index(db, number)
            by_index = bank._vectors.at(db, "anna", newest, newest)
            assert by_index.func == bank._vectors._by_index  # type: ignore[attr-defined]
        monkeypatch.setattr(postgres, "FEW", 5)
        for query in ("word1 word2 word3", "word7", ""):
            monkeypatch.setattr(postgres, "BIG", 10_000)
            exact = bank.find(query, ANNA, k=10, mode="vector")
            monkeypatch.setattr(postgres, "BIG", 100)
            found = bank.find(query, ANNA, k=10, mode="vector")
            # Of equally near ones the index may give others.
            assert [hit.score for hit in found] == pytest.approx([hit.score for hit in exact])
        assert found == exact, "to what says nothing all are equally near, and the oldest come first"
        assert len(bank.find("word1", ANNA, k=10, mode="vector", where={"@session": ""})) == 10
        assert bank.find("word1", ANNA, k=10, mode="vector", where={"@session": "other"}) == []
        assert all(hit.record.scope == ANNA for hit in bank.find("word1 word2", ANNA, k=300, mode="vector"))

    def test_the_index_is_what_the_server_uses(self, bank: PostgresBank, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(postgres, "BIG", 100)
        self.filled(bank)
        with bank._tables.reading() as db:
            db.execute("SET enable_sort = off")  # of so few rows it would rather sort them
            (number,) = db.execute("SELECT number FROM users WHERE name = 'anna'").fetchone()
            asked: list[str] = []

            class Asking:
                def execute(self, query: str, values: Any = ()) -> Any:
                    found = db.execute(f"EXPLAIN {query}", values).fetchall()
                    asked.append("\n".join(row[0] for row in found))
                    return []

            postgres_server.near(Asking(), number, bank.embedder.embed(["word1"])[0], 5, None)  # type: ignore[arg-type]
        assert f"Index Scan using near_{number}" in asked[0]

    def test_where_no_index_can_be_made_what_was_written_is_there(
        self, bank: PostgresBank, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(postgres, "BIG", 100)
        with bank._tables.writing() as db:
            db.execute("CREATE TABLE near_1 (x INTEGER)")  # the name is taken
        self.filled(bank)
        assert len(bank.list(ANNA)) == 300 and "no index was made" in caplog.text
        assert bank.find("word1", ANNA, k=5, mode="vector")

    def test_what_a_filter_leaves_is_found_however_far_it_is(
        self, bank: PostgresBank, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres, "BIG", 100)
        monkeypatch.setattr(postgres, "FEW", 5)
        monkeypatch.setattr(postgres, "near", lambda *given: [])  # as where it gave up before it met any
        self.filled(bank)
        bank.apply([add(f"food {n}", payload={"topic": "food"}) for n in range(20)], ANNA, at=AT)
        found = bank.find("word1", ANNA, k=5, mode="vector", where={"topic": "food"})
        assert len(found) == 5 and len(bank.find("word1", ANNA, k=5, mode="vector")) == 5

    def test_whose_records_are_gone_has_no_index(self, bank: PostgresBank, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(postgres, "BIG", 100)
        self.filled(bank)
        bank.erase(ANNA)
        assert bank.settle(5) == ()
        with bank._tables.reading() as db:
            query = "SELECT count(*) FROM pg_class WHERE relname ~ '^near_' AND relkind = 'i' AND relnamespace = "
            assert db.execute(query + "current_schema()::regnamespace").fetchone() == (0,)

    def test_changes_after_the_index_was_made_are_found(
        self, bank: PostgresBank, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres, "BIG", 100)
        self.filled(bank)
        (new,) = bank.apply([add("Xanthippus")], ANNA, at=AT)
        assert new.record is not None
        assert bank.find("Xanthippus", ANNA, k=1, mode="vector")[0].record == new.record
        bank.apply([Operation("DELETE", id=new.record.id)], ANNA, at=AT)
        assert bank.find("Xanthippus", ANNA, k=1, mode="vector")[0].record != new.record


NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63), st.floats(allow_nan=False), st.sampled_from([0, -0.0, 1, 1.0, 10, 9, -9, -10, 0.1])
)


@given(NUMBERS, NUMBERS)
def test_numbers_are_kept_as_texts_in_their_order(one: float, other: float) -> None:
    assert (ordered(one) < ordered(other), ordered(one) == ordered(other)) == (one < other, one == other)


def test_statements_are_said_as_the_server_says_them() -> None:
    assert translated("SELECT a FROM t WHERE user = ? AND version IN (SELECT value FROM json_each(?))") == (
        'SELECT a FROM t WHERE "user" = %s AND version = '
        "ANY(ARRAY(SELECT one::bigint FROM json_array_elements_text(%s::json) one))"
    )
    assert translated("SELECT number FROM users") == "SELECT number FROM users"


class TestLibrary:
    """Everything above the bank takes a database's address where it takes a file."""

    def test_a_memory_in_a_database(self, tmp_path: Path) -> None:
        url = postgres_database()
        with Memory(url) as memory:
            results = memory.observe("I live in Porto. I have two cats.", ANNA)
            assert {result.code for result in results} == {"applied"}
            memory.add("Ben lives in Rome", BEN, metadata={"topic": "home"})
            assert "Porto" in memory.search("Where does she live?", ANNA, k=1)[0].record.text
            assert memory.export(tmp_path / "anna.jsonl", ANNA) == len(memory.list(ANNA)) > 0
            with pytest.raises(BankError, match="pg_dump"):
                memory.backup(tmp_path / "copy.db")
        with Memory(url, read_only=True) as memory:
            assert "MiniLM" in memory._bank.embedder.name, "as a new file has it"
            assert memory.list(BEN, where={"topic": "home"})[0].text == "Ben lives in Rome"
        with Memory(url) as memory:
            gone = memory.erase(ANNA)
            assert (gone.done, memory.list(ANNA), len(memory.list(BEN))) == (True, [], 1)
            assert gone.out_of_reach == (str(tmp_path / "anna.jsonl"),)
            assert memory.import_file(tmp_path / "anna.jsonl", None).added == gone.records > 0

    def test_from_the_command_line(self) -> None:
        url = postgres_database()
        told = CliRunner().invoke(app, ["add", "Anna has a dog", "--user", "anna", "--file", url])
        assert told.exit_code == 0, told.output
        found = CliRunner().invoke(app, ["search", "dog", "--user", "anna", "--file", url, "--json"])
        assert json.loads(found.stdout)[0]["record"]["text"] == "Anna has a dog"
        refused = CliRunner().invoke(app, ["reembed", "hashed", "--file", url])
        assert isinstance(refused.exception, BankError) and "works on a memory in a file" in str(refused.exception)
        nowhere = "postgresql://keeper:hush@127.0.0.1:1/bank"
        refused = CliRunner().invoke(app, ["search", "dog", "--user", "anna", "--file", nowhere])
        assert "cannot be reached" in str(refused.exception) and "hush" not in str(refused.exception)

    def test_a_server_of_two_processes(self, tmp_path: Path) -> None:
        url, keys = postgres_database(), tmp_path / "keys.json"
        secrets = [add_key(keys, tenant, tenant, rights=("read", "write", "erase")) for tenant in ("shop", "bank")]
        with running(tmp_path, "--keys", str(keys), "--workers", "2", place=url) as (_, address):
            for number in range(8):  # whichever process is asked
                for name, secret in zip(("shop", "bank"), secrets, strict=True):
                    who, bearer = {"user": "anna"}, {"Authorization": f"Bearer {secret}"}
                    item = {"text": f"Anna of the {name} said {number}"}
                    added = httpx2.post(f"{address}/v1/add", json=who | {"items": [item]}, headers=bearer)
                    assert added.status_code == 200, added.text
                    found = httpx2.post(f"{address}/v1/search", json=who | {"query": "Anna", "k": 100}, headers=bearer)
                    said = {hit["record"]["text"] for hit in found.json()["hits"]}
                    assert said == {f"Anna of the {name} said {n}" for n in range(number + 1)}


WRITER = """
import sys
from datetime import datetime
from memorist.memory.postgres import PostgresBank
from memorist.memory.record import Operation, Scope
with PostgresBank(sys.argv[1], schema=sys.argv[2]) as bank:
    for number in range(10**6):
        bank.apply([Operation("ADD", f"{number} first"), Operation("ADD", f"{number} second")], Scope("anna"),
                   at=datetime(2023, 5, 8))
        print(number, flush=True)
"""


def test_what_was_acknowledged_before_a_kill_is_there_and_nothing_is_half(bank: PostgresBank) -> None:
    command = [sys.executable, "-c", WRITER, postgres_url(), bank.schema]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(20)]
        os.kill(writer.pid, signal.SIGKILL)
        told += [int(line) for line in writer.stdout.read().split("\n") if line]
    held = texts(bank.list(ANNA))
    assert len(held) % 2 == 0
    assert held[: 2 * len(told)] == [f"{n} {which}" for n in told for which in ("first", "second")]
    bank.apply([add("and others go on")], ANNA, at=AT)
