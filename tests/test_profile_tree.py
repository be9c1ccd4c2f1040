"""The profile tree: vectors of its specification, the gate, and a bank that holds it like everything else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memorist.errors import BankError, DataError, RecipeError
from memorist.memory.bank import MemoryBank
from memorist.memory.profile_edits import Edit, read_edits
from memorist.memory.profile_schema import Schema, persona_schema
from memorist.memory.profile_text import compressed, coverage, retention, token_f1
from memorist.memory.profile_tree import Gate, ProfileTree
from memorist.memory.record import Operation, Scope
from memorist.memory.scratch import ScratchBank
from memorist.memory.sqlite import SQLiteBank

ANNA, AT = Scope("anna"), datetime(2025, 1, 1, tzinfo=UTC)
NAME = "4_Identity_Characteristics.Social_Identity.Legal_and_Civic_Status.Name"
STATUS = "4_Identity_Characteristics.Social_Identity.Legal_and_Civic_Status.Citizenship_Status"
SKILLS = "5_Behavioral_Characteristics.Interests_and_Skills."
HOBBIES, SOFT = SKILLS + "Interests_and_Hobbies", SKILLS + "Soft_Skills"
SMALL = Schema("small", (NAME, STATUS, HOBBIES, SOFT))
VECTOR = (
    Edit("ADD", NAME, "Mary"),
    Edit("ADD", NAME, "Mary Lee"),
    Edit("UPDATE", "4_Identity_Characteristics.Social_Identity", "x"),
    Edit("ADD", f"{NAME}.Nick", "M"),
    Edit("UPDATE", SOFT, "mentoring"),
    Edit("ADD", SKILLS + "Board_Games", "owns Catan"),
    Edit("DELETE", HOBBIES),
    Edit("DELETE", SOFT),
    Edit("ADD", "Hobbies.Chess", "weekly"),
)
CODES = (
    "added coerced:add->update reject:branch_write reject:under_leaf coerced:update->add extended noop:missing deleted "
    "reject:unknown_path"
).split()


@pytest.fixture(params=["scratch", "sqlite"])
def bank(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MemoryBank]:
    if request.param == "scratch":
        yield ScratchBank()
    else:
        with SQLiteBank(tmp_path / "m.db") as opened:
            yield opened


def tree(bank: MemoryBank | None = None, **given: object) -> ProfileTree:
    return ProfileTree(bank or ScratchBank(), ANNA, SMALL, **given)  # type: ignore[arg-type]


def codes(made: ProfileTree, *edits: Edit, day: int = 0) -> list[str]:
    return [str(one.code) for one in made.apply(edits, at=AT + timedelta(days=day), source=[f"turn-{day}"])]


class TestSchema:
    def test_the_released_one_is_whole(self) -> None:
        schema = persona_schema()
        assert (len(schema.leaves), len(schema.inner)) == (305, 89)
        assert schema.checksum == "43d3b223c55fcf013253b6bc67bf1bff4b57011d8358313452e193c469b49bba"

    def test_others_come_from_files_in_either_form(self, tmp_path: Path) -> None:
        (tmp_path / "own.json").write_text(json.dumps({"A": {"B": "", "C": {"D": ""}}, "E": ""}))
        (tmp_path / "own.txt").write_text("# mine\nA\n  B: x, y{z, w{v}}\n")
        assert Schema.read(tmp_path / "own.json").leaves == ("A.B", "A.C.D", "E")
        assert Schema.read(tmp_path / "own.txt", "mine") == Schema("mine", ("A.B.x", "A.B.y.z", "A.B.y.w.v"))

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ('{"A": {"B": "", "B": ""}}', "twice"),
            ('{"A": 3}', "neither an object nor a string"),
            ('{"A": ', "no JSON"),
            ('{"a": ' * 100_000, "no JSON"),
            ('{"A.B": ""}', ""),
            ('{"A b": ""}', "blanks"),
            ('{"": ""}', "empty"),
            ("{}", "no leaves"),
            ("", "no leaves"),
            ("A\n B: x, x", "twice"),
            ("A\n B: x, x{y}", "holds others"),
            ("A\n B: x{y", "not closed"),
            ("A\n B: x}", "not opened"),
            ("A\n B: x y", "no comma"),
            ("A\n B: (x)", "not allowed"),
            ("A\n B x", "no branch"),
            (" B: x", "below a root"),
        ],
    )
    def test_broken_ones_say_what_is_wrong(self, text: str, problem: str) -> None:
        if not problem:
            assert Schema.parse(text, "x").leaves == ("A.B",)  # a name with a dot is two parts of a path
            return
        with pytest.raises(DataError, match=problem):
            Schema.parse(text, "x")

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="cannot be read as a schema"):
            Schema.read(tmp_path / "none.json")


class TestEdits:
    def test_the_vector(self) -> None:
        text = 'ADD(A.B, "he said \\"hi\\"")\nDELETE(A.C)\nDELETE(A.D, None)\nfoo\nNO_OP()'
        found = read_edits(text)
        assert [e.kind for e in found.found] == ["ADD", "DELETE", "DELETE", "NO_OP"]
        assert found.found[0].value == 'he said "hi"' and found.bad == ("foo",) and found.lines == 5

    def test_what_surrounds_them_is_left_out(self) -> None:
        found = read_edits('<think>ADD(X, "no")</think>\n```text\n- ADD(A.B, "x\\n")\n2. update\n\n1) NO_OP( )\n```')
        assert [str(e) for e in found.found] == ['ADD(A.B, "x\\\\n")', "NO_OP()"] and found.bad == ("update",)

    @pytest.mark.parametrize(
        "line", ['ADD(A B, "x")', 'ADD(A, "x" y")', "ADD(A, x)", 'ADD(A.B "x")', 'ADD(A..B, "x")', "NO_OP", "NO_OP() x"]
    )
    def test_malformed_lines_are_counted(self, line: str) -> None:
        assert read_edits(line).bad == (line,)

    @given(st.text())
    def test_what_is_written_reads_back(self, value: str) -> None:
        blanks = [part for part in " ".join(value.splitlines()).split(" ") if part]  # only one between others is kept
        edit = Edit("ADD", "A.B", " ".join(blanks))
        assert read_edits(str(edit)).found == (edit,) or "\n" in str(edit)

    @given(st.text())
    def test_any_text_is_read(self, text: str) -> None:
        found = read_edits(text)
        assert len(found.found) + len(found.bad) == found.lines <= text.count("\n") + 1

    def test_long_input_is_read_in_time(self) -> None:
        assert len(read_edits("NO_OP()\n" * 10_000).found) == 10_000
        assert read_edits('ADD(A, "' + "\\" * 300_000).bad and read_edits("A." * 300_000).bad


class TestGate:
    def test_the_vector(self, bank: MemoryBank) -> None:
        made = tree(bank, policy="extend")
        assert codes(made, *VECTOR) == CODES
        assert made.leaves() == {NAME: "Mary Lee", SKILLS + "Board_Games": "owns Catan"}

    def test_the_vector_closed(self) -> None:
        assert codes(tree(), *VECTOR) == [*CODES[:5], "reject:unknown_path", *CODES[6:]]

    def test_snap_takes_the_likest_leaf(self) -> None:
        made = tree(policy="snap")
        [one] = made.apply([Edit("ADD", SKILLS + "Hobbies", "chess")], at=AT)
        assert (one.code, one.path, one.snapped) == (Gate.ADDED, HOBBIES, True)
        assert codes(made, Edit("ADD", "Quite.Other", "x")) == ["reject:unknown_path"]

    def test_the_same_text_is_support(self, bank: MemoryBank) -> None:
        made = tree(bank)
        assert codes(made, Edit("ADD", NAME, "Mary")) + codes(made, Edit("UPDATE", NAME, " Mary "), day=1) == [
            "added",
            "noop:same",
        ]
        record = made.records()[NAME]
        assert record.payload["support"] == 2 and record.source == ("turn-0", "turn-1")

    @pytest.mark.parametrize("value", ["", " \n ", "\0", "\ud800"])
    def test_blank_values_are_refused(self, value: str) -> None:
        made = tree()
        assert codes(made, Edit("ADD", NAME, value), Edit("ADD", STATUS, "Swiss")) == ["reject:empty", "added"]

    def test_very_long_values_and_lists(self) -> None:
        made = tree()
        assert codes(made, Edit("ADD", NAME, "x" * 2_000_000)) == ["reject:too_long"]
        [one] = made.apply([Edit("ADD", NAME, "word " * 200_000)], at=AT)
        assert one.compressed and len(made.leaves()[NAME].split()) == 64
        found = codes(made, *(Edit("ADD", STATUS, f"number {i}") for i in range(10_000)))
        assert found[0] == "added" and set(found[1:]) == {"coerced:add->update"}
        assert made.leaves()[STATUS] == "number 9999" and len(made.versions()) == 2

    def test_extensions_are_bounded(self) -> None:
        made = tree(policy="extend")
        wide = [Edit("ADD", f"{SKILLS}New{i}", "x") for i in range(70)]
        assert codes(made, *wide).count("extended") == 64
        wrong = ("new", "A" * 65, "B.C.D.E.F", "x-y")
        assert set(codes(tree(policy="extend"), *(Edit("ADD", SKILLS + w, "x") for w in wrong))) == {
            "reject:unknown_path"
        }
        assert codes(made, Edit("ADD", f"{SKILLS}New0.Sub", "x"), Edit("DELETE", f"{SKILLS}New0")) == [
            "reject:under_leaf",
            "deleted",
        ]

    def test_updates_that_drop_what_was_known(self) -> None:
        old, new = Edit("ADD", SOFT, "mentoring"), Edit("UPDATE", SOFT, "public speaking")
        for guard, lost, text in (
            ("warn", True, "public speaking"),
            ("off", False, "public speaking"),
            ("concat", True, "mentoring; public speaking"),
        ):
            made = tree(guard=guard)
            found = made.apply([old, new], at=AT)
            assert (found[1].lost, made.leaves()[SOFT]) == (lost, text)

    def test_a_guard_of_the_bank_says_no(self, tmp_path: Path) -> None:
        guard = lambda op, scope: "secret" if "secret" in op.text else None  # noqa: E731
        with SQLiteBank(tmp_path / "m.db", guard=guard) as bank:
            made = tree(bank)
            assert codes(made, Edit("ADD", NAME, "secret"), Edit("ADD", STATUS, "Swiss")) == ["reject:refused", "added"]
            assert made.leaves() == {STATUS: "Swiss"}

    @given(
        st.lists(
            st.builds(
                Edit,
                st.sampled_from(["ADD", "UPDATE", "DELETE", "NO_OP", "?"]),
                st.sampled_from(
                    [
                        NAME,
                        HOBBIES,
                        "",
                        ".",
                        SKILLS,
                        f"{NAME}.X",
                        SKILLS + "New",
                        SKILLS + "New.Sub",
                        "4_Identity_Characteristics",
                    ]
                ),
                st.text(max_size=8),
            ),
            max_size=12,
        ),
        st.sampled_from(["closed", "extend", "snap"]),
    )
    @settings(max_examples=200)
    def test_no_edit_breaks_the_trunk(self, edits: list[Edit], policy: str) -> None:
        made, stepwise = tree(policy=policy), tree(policy=policy)
        found = made.apply(edits, at=AT)
        one_by_one = [stepwise.apply([edit], at=AT)[0] for edit in edits]
        assert [one.code for one in found] == [one.code for one in one_by_one]
        leaves = made.leaves()
        assert leaves == stepwise.leaves()
        assert not set(leaves) & SMALL.inner and all(text.strip() for text in leaves.values())
        assert not any(other.startswith(f"{one}.") for one in leaves for other in leaves)

    def test_settings_are_checked(self) -> None:
        with pytest.raises(RecipeError, match="closed"):
            tree(policy="closd")


class TestVersions:
    def test_views_undo_and_history(self, bank: MemoryBank) -> None:
        made = tree(bank)
        codes(made, Edit("ADD", NAME, "Mary"), Edit("ADD", HOBBIES, "chess"))
        codes(made, Edit("UPDATE", NAME, "Mary Lee"), Edit("DELETE", HOBBIES), Edit("ADD", SOFT, "mentoring"), day=10)
        first, second = made.versions()
        assert json.loads(made.view()) == {
            "4_Identity_Characteristics": {"Social_Identity": {"Legal_and_Civic_Status": {"Name": "Mary Lee"}}},
            "5_Behavioral_Characteristics": {"Interests_and_Skills": {"Soft_Skills": "mentoring"}},
        }
        assert made.leaves(as_of=first) == {NAME: "Mary", HOBBIES: "chess"} and not made.view(as_of=0)
        made.undo(second, at=AT + timedelta(days=11))
        assert made.leaves() == {NAME: "Mary", HOBBIES: "chess"}
        assert [c.kind for c in made.history(HOBBIES)] == ["ADD", "DELETE", "ADD"]
        assert made.leaves(as_of=second) == {NAME: "Mary Lee", SOFT: "mentoring"}

    def test_as_of_a_time(self, bank: MemoryBank) -> None:
        made = tree(bank)
        codes(made, Edit("ADD", NAME, "Mary"), Edit("ADD", HOBBIES, "chess"), day=1)
        codes(made, Edit("UPDATE", NAME, "Mary Lee"), Edit("DELETE", HOBBIES), day=10)
        if isinstance(bank, ScratchBank):
            with pytest.raises(BankError, match="knows no times"):
                made.leaves(as_of=AT)
            return
        days = {day: made.leaves(as_of=AT + timedelta(days=day, hours=1)) for day in (0, 1, 9, 10, 400)}
        before, after = {NAME: "Mary", HOBBIES: "chess"}, {NAME: "Mary Lee"}
        assert days == {0: {}, 1: before, 9: before, 10: after, 400: after}
        assert json.loads(made.view(as_of=AT + timedelta(days=10, hours=1)))

    def test_other_records_and_other_people_are_not_of_it(self, bank: MemoryBank) -> None:
        bank.apply([Operation("ADD", "I like tea.", key="tea"), Operation("ADD", "x")], ANNA, at=AT)
        bank.apply([Operation("ADD", "Bob", key=f"small:{NAME}")], Scope("anna", "other"), at=AT)
        made, bens = tree(bank), ProfileTree(bank, Scope("ben"), SMALL)
        assert not made.leaves() and made.view() == ""
        codes(made, Edit("ADD", NAME, "Anna"))
        assert made.leaves() == {NAME: "Anna"} and not bens.leaves()
        bank.erase(ANNA)
        assert not made.leaves() and not made.history(NAME)

    def test_an_overlay_leaves_it_alone(self) -> None:
        made = tree()
        codes(made, Edit("ADD", NAME, "Mary"))
        codes(tree(made.bank.fork()), Edit("DELETE", NAME))
        assert made.leaves() == {NAME: "Mary"}


class TestText:
    def test_vectors_of_retention(self) -> None:
        assert retention("mentoring", "public speaking") == 0
        assert retention("mentoring", "mentoring and public speaking") == 1
        new = "likes green tea, no longer eats spicy food"
        assert retention("likes spicy ramen and green tea", new) == pytest.approx(0.8)

    def test_vectors_of_coverage(self) -> None:
        known = [f"{SOFT} mentoring and public speaking".replace(".", " ").replace("_", " ")]
        known.append(f"{HOBBIES} weekly chess".replace(".", " ").replace("_", " "))
        assert coverage("What did I say about mentoring?", known) == 0.5
        assert coverage("Can you suggest a chess opening for my weekly club?", known) == 0.4

    def test_f1(self) -> None:
        assert token_f1("Kanoa Manu", "Mr. Kanoa Manu") == pytest.approx(0.8) and token_f1("", "") == 1

    def test_a_leaf_keeps_what_is_newest(self) -> None:
        text = "likes tea; plays the oboe. Lives in Rome; Likes tea"
        assert compressed(text, 9) == "plays the oboe. Lives in Rome; Likes tea"
        assert compressed(text, 5) == "Lives in Rome; Likes tea" and compressed(text, 100) == text
        assert compressed("a b c d e f", 3) == "a b c"

    @given(st.text(), st.integers(1, 20))
    def test_it_is_never_over_its_budget(self, text: str, budget: int) -> None:
        assert len(compressed(text, budget).split()) <= budget
