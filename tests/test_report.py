"""report.html: what stands in it, that nothing in it runs or loads, that hostile text stays text."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from memorist.agents.heuristics import AddOnlyManager, SimilarityManager, answer_json, operation_json
from memorist.agents.memory_r1 import MemoryR1Settings
from memorist.decision import Observation
from memorist.evaluation.exam import Exam, gold_bank, sit
from memorist.evaluation.report import table, write_report
from memorist.models.scripted import ScriptedSampler
from memorist.page import LONGEST_TEXT
from memorist.tasks.world import dialogues
from memorist.training.rollout import Seat

HOSTILE = '</td><script>alert("memory")</script><img src="http://evil.example/x.png" onerror=alert(1)>'
NOTHING = '{"memories":[],"answer":"none"}'
HELD_OUT = dialogues("test", 3)
GOLD = [q.answer for d in HELD_OUT for q in d.questions if q.category < 5]
FLOOR = 100 * GOLD.count("none") / len(GOLD)
GAIN = f"{100 - FLOOR:+.1f} points"
BUILD = MemoryR1Settings(candidates=6).build
VOID = {"meta", "br", "img", "link", "input", "hr"}


def exam(name: str, manager: Any, answer: str | Callable[[Observation], str] = NOTHING, **options: Any) -> Exam:
    script = answer if callable(answer) else lambda _: answer
    return sit(name, BUILD, HELD_OUT, {"manager": Seat(manager), "answerer": Seat(ScriptedSampler(script))}, **options)


def oracle(observation: Observation) -> str:
    gold = {q.text: q.answer for d in HELD_OUT for q in d.questions}
    return answer_json([0], gold[observation.prompt.split("Question:\n")[1].split("\n")[0]])


def scripted(*replies: str) -> ScriptedSampler:
    """A manager that gives these replies round and round."""
    count = iter(range(10**6))
    return ScriptedSampler(lambda _: replies[next(count) % len(replies)])


def steps(stage: int, role: str, count: int, **more: Any) -> list[dict[str, Any]]:
    row = {"stage": stage, "kind": "rl", "role": role, "steps": count, "decisions": 8, "seconds": 1.0, **more}
    return [{**row, "step": i + 1, "reward": i / count, "groups": 4, "flat_groups": 4 - i % 4} for i in range(count)]


METRICS = [*steps(0, "manager", 70, operations={"ADD": 5, "<b>INVENTED": 1}), *steps(1, "answerer", 5, operations={})]


@pytest.fixture(scope="module")
def before() -> Exam:
    # Five replies for three dialogues in step, so that each dialogue sees all of them.
    add, delete = operation_json("ADD", HOSTILE), operation_json("DELETE", number=0)
    return exam("base", scripted(add, add, "no idea <b>at all</b>", delete, operation_json("NONE")))


@pytest.fixture(scope="module")
def after() -> Exam:
    return exam("trained", SimilarityManager(0.97, 0.6), oracle)


def write(folder: Path, before: Exam, after: Exam, **given: Any) -> str:
    others = [exam("ADD only", AddOnlyManager()), exam("gold operations", AddOnlyManager(), oracle, bank=gold_bank)]
    options = {"title": "A <run>", "others": others, "metrics": METRICS, "notes": ["memorist chat: talk", "<i>rest"]}
    path = folder / "new" / "report.html"
    write_report(path, agent_before=before, agent_after=after, **{**options, **given})
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, before: Exam, after: Exam) -> str:
    return write(tmp_path_factory.mktemp("report"), before, after)


class Reader(HTMLParser):
    """Checks that tags close in order; keeps tags with their attributes, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, Mapping[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        self.text += data

    @classmethod
    def of(cls, page: str) -> Reader:
        reader = cls()
        reader.feed(page)
        reader.close()
        assert reader.open == []
        return reader


def test_a_table_row_has_value_interval_and_counts(before: Exam, after: Exam) -> None:
    first, second = table([before, after])
    assert (first.name, first.value, first.n, first.dialogues) == ("base", pytest.approx(FLOOR), len(GOLD), 3)
    assert 0 <= first.low <= first.value <= first.high < 100
    assert (second.value, second.low, second.high, second.n) == (100, 100, 100, len(GOLD))


def test_a_row_of_a_category_counts_only_where_it_was_asked(before: Exam) -> None:
    for category in (1, 2, 3, 4):
        questions = [sum(q.category == category for q in d.questions) for d in HELD_OUT]
        assert [(r.n, r.dialogues) for r in table([before], [category])] == (
            [(sum(questions), sum(map(bool, questions)))] if sum(questions) else []
        )


def test_the_page_is_well_formed_and_has_all_sections(page: str) -> None:
    reader = Reader.of(page)
    assert [a["id"] for tag, a in reader.tags if tag == "h2"] == [
        "training",
        "systems",
        "operations",
        "dialogues",
        "next",
    ]
    for text in (
        "A <run>",
        "base",
        "trained",
        "ADD only",
        "gold operations",
        GAIN,
        "single-hop",
        "Open Domain",
    ):
        assert text in reader.text
    assert sum(tag == "section" for tag, _ in reader.tags) == 3
    stage_1, stage_2 = 3, 2  # The answerer has no operations to show.
    categories = {q.category for d in HELD_OUT for q in d.questions} - {5}
    assert sum(tag == "svg" for tag, _ in reader.tags) == stage_1 + stage_2 + 1 + len(categories)
    assert "memorist chat" in reader.text and "<i>rest" in reader.text


def test_nothing_is_loaded_and_nothing_runs(page: str) -> None:
    tags = Reader.of(page).tags
    assert {tag for tag, _ in tags} & {"script", "img", "link", "iframe", "object", "embed", "base", "form"} == set()
    for tag, attributes in tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in {"src", "href", "xlink:href", "srcset", "data", "action"} & attributes.keys():
            assert str(attributes[name]).startswith("#")
    assert "@import" not in page and not re.search(r"url\((?!#)", page)
    policy = next(a["content"] for tag, a in tags if tag == "meta" and "http-equiv" in a)
    assert policy is not None and "default-src 'none'" in policy


def test_hostile_text_is_shown_as_text(page: str) -> None:
    assert "<script" not in page and "<b>at all" not in page and "<b>INVENTED" not in page and "<run>" not in page
    text = Reader.of(page).text
    assert HOSTILE in text and "no idea <b>at all</b>" in text


def test_a_turn_shows_its_operations_side_by_side(page: str) -> None:
    for kind in ("ADD", "DELETE", "UPDATE", "NOOP", "malformed"):
        assert re.search(rf'<td data-of="(before|after)"><div><span class="op"[^>]*>{kind}</span>', page), kind
    assert re.search(r">DELETE</span><del>&lt;/td&gt;", page)
    turn = HELD_OUT[0].conversation.sessions[0].messages[0]
    row = re.search(rf"<b>{turn.speaker}:</b> {re.escape(turn.text)}.*?</tr>", page)
    assert row is not None and row[0].count('data-of="') == 2
    assert f"<ins>{turn.statements[0]}</ins>" in row[0].split('data-of="after"')[1]


def test_answers_carry_marks_and_gold(page: str) -> None:
    text = Reader.of(page).text
    right_before = GOLD.count("none")
    assert text.count("✓") == len(GOLD) + right_before
    assert text.count("✗") == len(GOLD) - right_before
    assert all(q.text in text for d in HELD_OUT for q in d.questions if q.category < 5)


def test_confusion_tables_count_every_statement_and_outline_gold(page: str, before: Exam) -> None:
    heats = re.findall(r'<table class="heat">.*?</table>', page)
    told = sum(len(m.statements) > 0 for d in HELD_OUT for m in d.conversation.messages())
    for heat in heats:
        assert sum(map(int, re.findall(r'<th class="n">(\d+)</th></tr>', heat))) == told
        cells = re.findall(r"--share:[\d.]+\">(?:<[^>]*>)?(\d+)", heat)
        assert sum(map(int, cells)) == told
        assert 'class="n gold"' in heat
    assert len(heats) == 2


def test_kinds_that_a_model_invents_stay_in_bounds(tmp_path: Path, after: Exam) -> None:
    kinds = [f'[{{"event":"{"X" * 50_000}{i}","text":"a"}}]' for i in range(20)]
    page = write(tmp_path, exam("inventive", scripted(*kinds)), after, others=[], metrics=[])
    Reader.of(page)
    assert "anything else" in page and "No training steps were logged." in page
    assert "X" * (LONGEST_TEXT + 1) not in page


def test_names_that_matplotlib_could_misread_are_drawn(tmp_path: Path, before: Exam, after: Exam) -> None:
    odd = Exam("$\\frac{ <b>記憶</b> & \ud800", before.dialogues, before.runs)
    page = write(tmp_path, before, after, others=[odd], metrics=[])
    assert "<b>記憶" not in page and "記憶" in Reader.of(page).text


def test_without_matplotlib_the_report_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: Exam, after: Exam
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = Reader.of(write(tmp_path, before, after)).text
    assert "pip install 'memorist[report]'" in text and GAIN in text


def test_exams_on_other_dialogues_are_refused(tmp_path: Path, before: Exam, after: Exam) -> None:
    fewer = Exam("fewer", after.dialogues[:2], after.runs[:2])
    with pytest.raises(ValueError, match="dialogues"):
        write(tmp_path, before, fewer)
