"""Questions about tables, judged: what is measured, votes within a budget, the report and the notebooks beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from conftest import needs_sandbox

pytest.importorskip("torch")
from rich.console import Console
from typer.testing import CliRunner

from memorist.agents.datarus import DatarusSettings
from memorist.cli import app
from memorist.decision import Action, Observation
from memorist.errors import ArgumentError, RecipeError
from memorist.evaluation import notebook
from memorist.evaluation.notebook import answered, measured, questions, run
from memorist.evaluation.voting import Budget
from memorist.models.sampler import Request
from memorist.models.scripted import ScriptedSampler
from memorist.tasks.notebook.episodes import NotebookTask
from memorist.tasks.notebook.experts import Expert, written
from memorist.tasks.notebook.ran import Ran
from memorist.training.rollout import Seat

pytestmark = needs_sandbox

QUIET = Console(quiet=True)


def expert(tasks: Sequence[NotebookTask], slips: float = 0.0, errs: float = 0.0) -> ScriptedSampler:
    """A model that does what an expert would, in the agent's own prompts."""
    known = {(task.asked, task.shown): Expert(task, slips=slips, errs=errs) for task in tasks}

    def says(seen: Observation) -> str:
        prompts = [*(asked.prompt for asked, _ in seen.after), seen.prompt]
        first = next(one for key, one in known.items() if key[0] in prompts[0] and key[1] in prompts[0])
        told = [prompt.removeprefix("<observation>").partition("</observation>")[0] for prompt in prompts[1:]]
        return written(first.next([Ran(text) for text in told]))

    return ScriptedSampler(says, "expert")


class Sometimes:
    """Answers rightly where a draw of the request's seed says so; else one of two wrong answers."""

    name = "sometimes"

    def __init__(self, tasks: Sequence[NotebookTask], right: int) -> None:
        self.known, self.right, self.asked = {task.asked: task for task in tasks}, right, 0

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        self.asked += len(requests)
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Action:
        task = next(task for asked, task in self.known.items() if asked in request.observation.prompt)
        answer = task.question.gold if request.seed % 10 < self.right else f"none{request.seed % 2}"
        return Action(f"<think>so</think><answer>{answer}</answer>", distribution=request.distribution)


def test_an_expert_is_right_and_one_that_slips_recovers() -> None:
    tasks = questions(24).tasks(0)
    for slips in (0.0, 1.0):
        found = measured(answered(DatarusSettings(), {"analyst": Seat(expert(tasks, slips))}, tasks, Budget()))
        assert found.correct == found.format == found.answered == 1 and found.fabricated == 0
        assert found.recovered == (1 if slips else None) and (found.failed > 0.5) is bool(slips)
        assert len(found.by_skill) == 12 and set(found.by_skill.values()) == {1.0} and found.tokens > 20


class TestVotes:
    tasks = questions(36).tasks(0)
    quick = DatarusSettings(mode="reflection")

    def test_what_most_say_is_right_more_often_than_one_answer(self) -> None:
        model = Sometimes(self.tasks, right=6)
        one = measured(answered(self.quick, {"analyst": Seat(model)}, self.tasks, Budget()))
        most = measured(answered(self.quick, {"analyst": Seat(model)}, self.tasks, Budget(9)))
        assert most.correct > one.correct + 0.1 and most.tokens > one.tokens

    def test_nobody_is_asked_once_it_is_decided(self) -> None:
        sure = Sometimes(self.tasks, right=10)
        answered(self.quick, {"analyst": Seat(sure)}, self.tasks, Budget(9))
        assert sure.asked == 5 * len(self.tasks)

    def test_nobody_is_asked_beyond_the_budget(self) -> None:
        torn = Sometimes(self.tasks, right=5)
        found = answered(self.quick, {"analyst": Seat(torn)}, self.tasks, Budget(9, 2))
        assert torn.asked == 2 * len(self.tasks) and all(len(one.runs) == 2 for one in found)

    def test_numbers_that_differ_in_their_writing_agree_and_no_answer_is_no_vote(self) -> None:
        replies = [f"<think></think><answer>{text}</answer>" for text in ("1,000.0", "7", "1000")] + ["nothing"] * 2
        found = answered(self.quick, {"analyst": Seat(ScriptedSampler(replies))}, self.tasks[:1], Budget(5))
        assert found[0].chosen == "1,000.0"
        none = answered(self.quick, {"analyst": Seat(ScriptedSampler(["x"] * 3))}, self.tasks[:1], Budget(3))
        assert none[0].chosen is None


class TestReport:
    def test_a_page_and_notebooks(self, tmp_path: Path) -> None:
        tasks = questions(12).tasks(0)
        told = run(None, expert(tasks, errs=1.0), questions(12), tmp_path, Budget(), True, QUIET, QUIET)  # type: ignore[arg-type]
        assert 0 < told.correct < 1
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        files = sorted(file.name for file in tmp_path.glob("*.ipynb"))
        assert len(files) == notebook.SHOWN and all(name in page for name in files)
        assert "wrong" in page and "right is" in page and "<svg" in page and "default-src 'none'" in page
        cells = json.loads((tmp_path / files[0]).read_text())["cells"]
        assert next(cell["cell_type"] for cell in cells) == "markdown" and any(c["cell_type"] == "code" for c in cells)

    def test_the_mode_can_be_asked_for(self, tmp_path: Path) -> None:
        model = Sometimes(questions(12).tasks(0), right=10)
        told = run(None, model, questions(12), tmp_path, Budget(), True, QUIET, QUIET, mode="reflection")
        assert told.correct == told.format == 1 and told.cells == 0
        with pytest.raises(RecipeError, match="did you mean 'reflection'"):
            run(None, model, questions(1), tmp_path, Budget(), True, QUIET, QUIET, mode="reflect")

    def test_what_cannot_be_judged_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="--run FOLDER or --endpoint"):
            run(None, None, questions(1), tmp_path, Budget(), True, QUIET, QUIET)
        (tmp_path / "recipe.yaml").write_text("name: other\n")
        with pytest.raises(RecipeError, match="expected 'datarus'"):
            run(tmp_path, None, questions(1), tmp_path, Budget(), True, QUIET, QUIET)
        none = CliRunner().invoke(app, ["eval", "notebook", "--votes", "0", "--run", str(tmp_path)])
        assert isinstance(none.exception, ArgumentError) and "1 or more votes" in str(none.exception)
        both = CliRunner().invoke(app, ["eval", "notebook", "--run", "x", "--endpoint", "http://localhost/v1#m"])
        assert isinstance(both.exception, RecipeError) and "takes the place" in str(both.exception)
