"""Runs whose tokens somebody else samples: ids and masks are the sampled ones, and what such a trainer has not is
refused."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from memorist.cli import cluster
from memorist.decision import Action, Decision, Distribution, Observation, Reward
from memorist.errors import PolicyError, RecipeError
from memorist.models.registry import open_policy
from memorist.models.sampler import Request
from memorist.recipe import load_recipe, read_recipe, to_plain
from memorist.training.launch.served import TokenActor, Window, play_served, refuse, windows

TINY = open_policy("bundled")


class Server:
    """Samples tokens of the bundled base for token ids, as a server would."""

    def __init__(self, policy: Any = TINY) -> None:
        self.policy, self.seen = policy, list[tuple[tuple[int, ...], tuple[int, ...]]]()

    async def __call__(self, prompt: Sequence[int], most: int) -> Any:
        ids = tuple(prompt)

        asked = Observation(str(len(self.seen)), max_tokens=min(most, 48))
        prompts, self.policy.prompt_ids = self.policy.prompt_ids, lambda observation: ids
        try:
            [action] = self.policy.sample([Request(asked, Distribution(), len(self.seen))])
        finally:
            self.policy.prompt_ids = prompts
        self.seen.append((ids, action.tokens))
        return SimpleNamespace(token_ids=list(action.tokens), log_probs=list(action.logprobs))


def one_stage(**stage: Any) -> Any:
    data = {"dialogues": 2, "questions": 3}
    first = {"role": "manager", "cut": "whole", "rule": "grpo", "steps": 1} | stage
    models = {"manager": "bundled", "answerer": "bundled"}
    return read_recipe(
        {"agent": {"name": "memory-r1", "style": "compact"}, "models": models, "data": data, "stages": [first]}
    )


class TestServedRuns:
    def test_memory_r1s_ids_are_those_that_were_sampled(self) -> None:
        recipe, server = one_stage(), Server()
        task = recipe.data.tasks(0)[0]
        session = asyncio.run(play_served(recipe, task, TINY.tokenizer, server, Distribution()))
        assert [(w.prompt, w.response) for w in session.windows] == [s for s in server.seen if s[1]]
        assert all(set(w.mask) == {1} and len(w.logprobs) == len(w.response) for w in session.windows)
        assert session.terms == {"exact_match": session.reward}
        assert {d.role for d in session.trajectory.decisions} == {"manager", "answerer"}

    def test_memagent_runs_as_it_is(self) -> None:
        recipe = read_recipe(
            {
                "agent": {"name": "memagent", "style": "compact", "chunk": 30, "memory": 40, "answer": 16},
                "models": {"reader": "bundled-reader"},
                "data": {"kind": "long-document", "task": "pages", "words": 80, "documents": 2},
                "stages": [{"role": "reader", "cut": "whole", "rule": "grpo-no-std", "steps": 1}],
            }
        )
        reader = open_policy("bundled-reader")
        session = asyncio.run(
            play_served(recipe, recipe.data.tasks(0)[0], reader.tokenizer, Server(reader), Distribution())
        )
        assert len(session.windows) == len(session.trajectory.decisions) >= 3
        assert set(session.terms) == {"answer"}

    def test_a_choice_is_not_asked_of_a_server(self) -> None:
        actor = TokenActor("r", TINY.tokenizer, Server(), Distribution(), [])
        with pytest.raises(PolicyError, match="choose"):
            asyncio.run(actor.act(Observation("q", options=("a", "b"))))


class TestWindows:
    def test_memsearchers_vector_7(self) -> None:
        first = Observation("p")
        prompt, wrote, block = tuple(range(30)), (1,) * 12, (2,) * 40
        a = Action("a", prompt, wrote, (-0.5,) * 12)
        b = Action("b", (*prompt, *wrote, *block), (3,) * 9, (-0.25,) * 9)
        decisions = [Decision("s", "x", first, a), Decision("s", "x", first.then(a, "found"), b)]
        [window] = windows(decisions, "s")
        assert len(window.response) == 61
        assert window.mask == (1,) * 12 + (0,) * 40 + (1,) * 9
        assert window.logprobs == (-0.5,) * 12 + (0.0,) * 40 + (-0.25,) * 9

    def test_other_roles_and_what_says_nothing_are_left_out(self) -> None:
        decisions = [
            Decision("s", "x", Observation("p"), Action("", (1,))),
            Decision("t", "x", Observation("p"), Action("a", (1,), (2,), (0.0,))),
            Decision("s", "x", Observation("p"), Action("a", (1,), (2,), (0.0,))),
        ]
        assert windows(decisions, "s") == (Window((1,), (2,), (1,), (0.0,)),)


class TestRefused:
    @pytest.mark.parametrize(
        ("stage", "message"),
        [
            ({"rule": "ppo"}, "critic along several windows"),
            ({"rule": "by-mean"}, "rule by-mean"),
            ({"reduction": "decision"}, "reduction decision"),
            ({"cut": "turns", "leads": 1}, "cut turns"),
            ({"share": "last"}, "share last"),
            ({"entropy": 0.1, "redraw": 2}, r"redraw 2.*entropy 0\.1"),
            ({"beta": 0.1, "kl_in": "reward"}, "kl_in reward"),
            ({"cooldown": 0.2, "truncated": "left-out"}, r"cooldown 0\.2.*truncated left-out"),
            ({"optimizer": "sgd"}, "optimizer sgd"),
        ],
    )
    def test_what_the_trainer_has_not_is_named(self, stage: dict[str, Any], message: str) -> None:
        with pytest.raises(RecipeError, match=message):
            refuse(one_stage(**stage))

    def test_rewards_on_single_decisions_are_not_lost_without_a_word(self) -> None:
        with pytest.raises(RecipeError, match="reward_chunks"):
            refuse(replace(memagent := load_recipe("memagent"), stages=memagent.stages[:1]))
        recipe, server = one_stage(), Server()
        task = replace(recipe.data.tasks(0)[0], rewards=("exact_match", "told"))
        told = (Reward("told", 1.0, 0),)
        object.__setattr__(task, "placed", lambda outcome, decisions: told)
        object.__setattr__(task, "score", lambda outcome: ())
        with pytest.raises(RecipeError, match="single decisions"):
            asyncio.run(play_served(recipe, task, TINY.tokenizer, server, Distribution()))

    def test_choices_and_stages_in_a_row(self) -> None:
        with pytest.raises(RecipeError, match=r"policy that chooses.*reward oracle-0\.9"):
            refuse(load_recipe("rmm"))
        with pytest.raises(RecipeError, match="expected one of kind rl"):
            refuse(load_recipe("memory-r1"))

    def test_what_it_has_is_let_through(self) -> None:
        assert refuse(one_stage(rule="grpo-no-std", beta=0.1)).rule == "grpo-no-std"


def test_the_command_takes_one_stage_and_says_what_it_needs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plain = to_plain(load_recipe("memsearcher"))
    plain["data"]["reward_turns"] = False
    [stage_] = plain["stages"]
    plain["stages"] = [stage_ | {"cooldown": 0.0}] * 2
    recipe = tmp_path / "searcher.yaml"
    recipe.write_text(yaml.safe_dump(plain))
    for stage, message in ((7, "expected 0 to 1"), (None, "expected one of kind rl")):
        with pytest.raises(RecipeError, match=message):
            cluster.write(str(recipe), tmp_path, stage=stage)
    try:
        cluster.write(str(recipe), tmp_path, stage=0)
    except RecipeError as error:
        assert "verl 0.9" in str(error)  # it is not here
    else:
        assert "verl.trainer.main_ppo" in capsys.readouterr().out
