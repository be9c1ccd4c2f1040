"""PersonaMem on made-up rows: what is read, how replies are scored, and that nothing is known before it is said."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from memorist.agents.personatree import PersonaTree
from memorist.agents.profile_heuristics import RESIDENCE, RuleListener
from memorist.cli import app
from memorist.decision import Action
from memorist.errors import DataError
from memorist.evaluation.personamem import MODES, evaluate, summary
from memorist.memory.scratch import minilm_bank
from memorist.models.sampler import Greedy
from memorist.tasks.personamem import chosen, load_personamem
from test_endpoint import completion, serving

TALK = [
    {"role": "system", "content": "The user was born in Graz."},
    {"role": "user", "content": "I live in Porto."},
    {"role": "assistant", "content": "Nice."},
    {"role": "user", "content": "I have moved to Leeds."},
    {"role": "assistant", "content": "Oh."},
]
ROW = {
    "question_id": "q1", "question_type": "recall_user_shared_facts", "topic": "home",
    "user_question_or_message": "Where do I live?", "correct_answer": "(b)",
    "all_options": str(["(a) Graz", "(b) Porto", "(c) Leeds", "(d) it's Łódź, \"I think\""]),
    "shared_context_id": "c1", "end_index_in_shared_context": "3",
}  # fmt: skip


def files(folder: Path, *rows: dict[str, Any], talk: Any = None) -> tuple[Path, Path]:
    questions, contexts = folder / "questions.csv", folder / "contexts.jsonl"
    with open(questions, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(ROW))
        writer.writeheader()
        writer.writerows([{**ROW, **row} for row in rows])
    contexts.write_text(json.dumps({"c1": TALK if talk is None else talk}) + "\n", encoding="utf-8")
    return questions, contexts


def test_rows_are_read(tmp_path: Path) -> None:
    [question], dialogues = load_personamem(*files(tmp_path, {}))
    assert question.choices[3] == '(d) it\'s Łódź, "I think"' and question.answer == "b" and question.end == 3
    assert [m.speaker for m in dialogues["c1"]] == ["system", "user", "assistant", "user", "assistant"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"correct_answer": "b"},
        {"correct_answer": "(e)"},
        {"all_options": "['(a) x', '(b) y']"},
        {"all_options": "__import__('os').system('true')"},
        {"all_options": "['(b) x', '(a) y', '(c) z', '(d) w']"},
        {"end_index_in_shared_context": "6"},
        {"end_index_in_shared_context": "soon"},
        {"shared_context_id": "c2"},
        {"all_options": "[" * 90_000},
    ],
)
def test_other_rows_are_refused_by_number(tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(DataError, match="row 3"):
        load_personamem(*files(tmp_path, {}, wrong))


def test_files_that_are_none(tmp_path: Path) -> None:
    questions, contexts = files(tmp_path, {}, talk=[{"role": "user"}])
    with pytest.raises(DataError, match="line 1"):
        load_personamem(questions, contexts)
    with pytest.raises(DataError, match="does not exist"):
        load_personamem(questions, tmp_path / "no")


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("<final_answer>(c)", "c"),
        ("I compare (a) and (b). <final_answer>(B)</final_answer>", "b"),
        ("<final_answer>(a)</final_answer> no: <final_answer>d</final_answer>", "d"),
        ("<final_answer>(a) or (b)", ""),
        ("It is (d).", "d"),
        ("(a), (b)", ""),
        ("a banana", ""),
        ("<final_answer>none of them. (c)</final_answer>", "c"),
        ("", ""),
    ],
)
def test_replies_are_scored_as_they_were(reply: str, letter: str) -> None:
    assert chosen(reply) == letter


class Reader:
    """Answers with the option that what it is shown says; abstains where it says none."""

    name = "reader"

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def sample(self, requests: Any) -> list[Action]:
        found = []
        for request in requests:
            self.prompts.append(prompt := request.observation.prompt)
            shown = prompt[: prompt.index("<question>")]
            place = next((letter for letter, town in zip("abc", ("Graz", "Porto", "Leeds"), strict=True)
                          if town in shown), "")  # fmt: skip
            found.append(Action(f"Answer: ({place})"))
        return found


def test_nothing_is_known_before_it_is_said_and_no_letter_is_wrong(tmp_path: Path) -> None:
    later = {"question_id": "q2", "correct_answer": "(c)", "end_index_in_shared_context": "5"}
    first = {"question_id": "q0", "end_index_in_shared_context": "1"}
    questions, dialogues = load_personamem(*files(tmp_path, later, {}, first))
    reader = Reader()

    def make(mode: str) -> PersonaTree:
        return PersonaTree(bank=minilm_bank(), listener=Greedy(RuleListener()), answerer=Greedy(reader), mode=mode)

    rows = list(evaluate(make, questions, dialogues, system=False))
    fast = {row.id: row for row in rows if row.mode == "fast"}
    assert list(fast) == ["q0", "q1", "q2"] and [row.right for row in fast.values()] == [False, True, True]
    assert fast["q0"].chosen == "" and fast["q0"].words == 0
    assert "Leeds" not in "".join(p[: p.index("<question>")] for p in reader.prompts[:6])
    found = summary(rows)
    assert found["fast"]["accuracy"] == 2 / 3 and found["fast"]["types"] == {"Recall-User": 2 / 3}
    assert found["fast"]["without_a_letter"] == 1 and set(found) == {*MODES, "oracle"}


def test_from_the_command_line(tmp_path: Path) -> None:
    def answer(number: int, body: dict[str, Any]) -> Any:
        asked = body["messages"][-1]["content"]
        return completion(f'ADD({RESIDENCE}, "Porto")' if "<leaves>" in asked else "<final_answer>(b)</final_answer>")

    questions, contexts = files(tmp_path, {})
    with serving(answer) as (url, asked):
        words = ["eval", "personamem", "--file", str(questions), "--contexts", str(contexts), "--json"]
        words += ["--endpoint", f"{url}#m", "--out", str(tmp_path / "out")]
        ran = CliRunner().invoke(app, words)
        assert json.loads(ran.stdout)["fast"]["accuracy"] == 1.0, ran.output
        before = len(asked)
        assert CliRunner().invoke(app, words).stdout == ran.stdout and len(asked) == before, "replies are kept"
    rows = [json.loads(line) for line in (tmp_path / "out" / "personamem.jsonl").read_text().splitlines()]
    assert [row["mode"] for row in rows] == [*MODES, "oracle"]
    assert CliRunner().invoke(app, words[:4]).exit_code != 0
