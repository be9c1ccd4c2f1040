"""verl's contract, in verl's own environment (`make test-verl`): not collected elsewhere, whose transformers is
another."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner
from verl.experimental.agent_loop.agent_loop import DictConfigWrap
from verl.protocol import DataProto
from verl.trainer.ppo.core_algos import AdvantageEstimator
from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories
from verl.workers.rollout.replica import TokenOutput

from documented import commands
from memorist.cli import app
from memorist.decision import Action, Decision, Observation, Reward, Trajectory
from memorist.recipe import read_recipe
from memorist.training.credit import How, credit
from memorist.training.launch.verl import AGENT, MemoristAgentLoop, outputs, write
from memorist.training.rollout import Run

R1 = {
    "agent": {"name": "memory-r1", "style": "compact"},
    "models": {"manager": "bundled", "answerer": "add-nothing"},
    "data": {"dialogues": 2, "questions": 3},
    "stages": [{"role": "manager", "cut": "whole", "rule": "grpo", "steps": 3, "tasks": 2, "siblings": 4}],
}
READ = {
    "agent": {"name": "memagent", "style": "compact", "chunk": 20, "memory": 24, "answer": 12},
    "models": {"reader": "bundled-reader"},
    "data": {"kind": "long-document", "task": "pages", "words": 60, "documents": 3},
    "stages": [{"role": "reader", "cut": "whole", "rule": "grpo-no-std", "steps": 3, "tasks": 2, "siblings": 4}],
}
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, with a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["</s>", "<user>", "<assistant>", "<system>"]
    tok = Tokenizer(models.BPE(vocab={one: i for i, one in enumerate([*special, *alphabet])}, merges=[]))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    from tokenizers import decoders

    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens(special)
    made = PreTrainedTokenizerFast(tokenizer_object=tok, eos_token="</s>", pad_token="</s>")
    made.chat_template = TEMPLATE
    return made


class Client:
    """A scripted token server: writes by a function of the prompt's text, and keeps what it was sent and sent back."""

    def __init__(self, tok: PreTrainedTokenizerFast, write_: Any) -> None:
        self.tok, self.write, self.calls = tok, write_, list[tuple[list[int], list[int]]]()

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any], **given: Any
    ) -> TokenOutput:
        text = self.write(self.tok.decode(prompt_ids), len(self.calls))
        ids = [*self.tok.encode(text, add_special_tokens=False), self.tok.eos_token_id]
        ids = ids[: sampling_params["max_tokens"]]
        self.calls.append((prompt_ids, ids))
        return TokenOutput(token_ids=ids, log_probs=[-0.5] * len(ids))


def loop(folder: Path, plain: dict[str, Any], client: Client) -> MemoristAgentLoop:
    """As a worker of verl makes it."""
    [entry] = yaml.safe_load((folder / "agents.yaml").read_text())
    assert entry["name"] == AGENT and entry["_target_"] == "memorist.training.launch.verl.MemoristAgentLoop"
    config = OmegaConf.create(
        {"actor_rollout_ref": {"rollout": {"prompt_length": 4096, "response_length": 512}}, "data": {}}
    )
    return MemoristAgentLoop(
        recipe=entry["recipe"], trainer_config=DictConfigWrap(config), server_manager=client, tokenizer=client.tok,
        processor=None, dataset_cls=None, data_config=DictConfigWrap(config.data), hf_model_type="llama",
    )  # fmt: skip


def written(tmp_path: Path, plain: dict[str, Any]) -> tuple[Path, list[str], Any]:
    folder = tmp_path / "run"
    recipe = read_recipe(plain)
    return folder, write(recipe, folder), recipe


def reads(prompt: str, number: int) -> str:
    return "\\boxed{x}" if prompt.rstrip("<asitn>").endswith("Answer:\n") or "Answer:" in prompt else "Some memory."


class TestServedRuns:
    def test_memagent_through_a_scripted_server(self, tmp_path: Path) -> None:
        folder, _, _ = written(tmp_path, READ)
        client = Client(tokenizer(), reads)
        rows = pandas.read_parquet(folder / "tasks.parquet").to_dict("records")
        assert len(rows) == 3 and rows[0]["agent_name"] == AGENT
        found = asyncio.run(loop(folder, READ, client).run({"temperature": 1.0, "top_p": 1.0, "top_k": -1}, **rows[1]))
        assert len(found) == len(client.calls) >= 3
        for one, (prompt, ids) in zip(found, client.calls, strict=True):
            assert (one.prompt_ids, one.response_ids) == (prompt, ids)
            assert one.response_mask == [1] * len(ids) and one.response_logprobs == [-0.5] * len(ids)
        assert found[-1].reward_score == 0.0 and found[-1].extra_fields["reward_extra_info"] == {"answer": 0.0}
        assert all(one.reward_score is None for one in found[:-1])
        assert found[-1].as_dict()["rm_scores"].shape == (len(found[-1].response_ids),)

    def test_memory_r1_through_a_scripted_server(self, tmp_path: Path) -> None:
        plain = R1 | {"models": {"manager": "bundled", "answerer": "bundled"}}
        folder, _, _ = written(tmp_path, plain)
        client = Client(tokenizer(), lambda prompt, number: '[{"event":"ADD"}]')
        rows = pandas.read_parquet(folder / "tasks.parquet").to_dict("records")
        found = asyncio.run(loop(folder, plain, client).run({"temperature": 1.0, "top_k": -1}, **rows[0]))
        assert [(one.prompt_ids, one.response_ids) for one in found] == client.calls
        assert 0 <= found[-1].reward_score <= 1


def test_its_advantages_are_ours() -> None:
    rng = np.random.default_rng(0)
    shapes = [(g, s, int(rng.integers(1, 4))) for g in range(3) for s in range(4)]
    rewards = {(g, s): float(rng.integers(0, 2)) + 0.1 * s for g, s, _ in shapes}
    keys, masks, index, scores = [], [], [], []
    groups: list[list[Run]] = [[] for _ in range(3)]
    for g, s, count in shapes:
        lengths = [int(rng.integers(1, 6)) for _ in range(count)]
        decisions = tuple(Decision("r", "p", Observation("x"), Action("", (1,), (2,) * n, (0.0,) * n)) for n in lengths)
        groups[g].append(Run(None, Trajectory("t", s, decisions, (Reward("r", rewards[g, s]),))))
        for i, n in enumerate(lengths):
            keys.append(f"u{g}_{s}_{i}")
            index.append(f"u{g}")
            masks.append([1] * n + [0] * (6 - n))
            row = [0.0] * 6
            row[n - 1] = rewards[g, s]
            scores.append(row)
    for rule, divided in (("grpo", True), ("grpo-no-std", False)):
        data = DataProto.from_dict(
            tensors={"response_mask": torch.tensor(masks), "token_level_rewards": torch.tensor(scores)},
            non_tensors={"uid": np.array(index, dtype=object)},
        )
        theirs = compute_advantage_for_multi_trajectories(
            data, keys, AdvantageEstimator.GRPO, norm_adv_by_std_in_grpo=divided
        ).batch["advantages"]
        ours = credit(groups, "r", how=How(rule)).units
        assert len(ours) == len(theirs)
        for unit, row, mask in zip(ours, theirs, masks, strict=True):
            assert row[: sum(mask)].tolist() == pytest.approx([unit.advantage] * sum(mask), abs=1e-5)


def test_what_is_written_is_a_command_of_known_settings(tmp_path: Path) -> None:
    import verl.trainer
    from hydra import compose, initialize_config_dir

    folder, command, _ = written(tmp_path, READ)
    assert command[:3] == ["python", "-m", "verl.trainer.main_ppo"]
    with initialize_config_dir(str(Path(verl.trainer.__file__).parent / "config"), version_base=None):
        config = compose("ppo_trainer", overrides=command[3:])
    assert config.actor_rollout_ref.rollout.n == 4 and config.algorithm.norm_adv_by_std_in_grpo is False
    assert (folder / "run.sh").read_text().startswith("#!/bin/sh")


def documented(beginning: str) -> list[str]:
    """The words of the one command of the documentation that begins so."""
    [line] = {line for _, line in commands() if line.startswith(beginning)}
    return shlex.split(line)[1:]


def ran(words: list[str]) -> str:
    """What a command prints."""
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_documented_command_writes_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(yaml.safe_dump(READ))
    told = ran([{"RECIPE": "mine.yaml"}.get(word, word) for word in documented("memorist cluster write ")])
    assert told.startswith("python -m verl.trainer.main_ppo ") and "Qwen/Qwen3-4B" in told
    left = {one.name for one in Path("runs/verl").iterdir()}
    assert left == {"tasks.parquet", "agents.yaml", "recipe.yaml", "run.sh"}


def test_shards_become_a_folder_by_the_documented_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    monkeypatch.chdir(tmp_path)
    words = documented("memorist cluster convert ")
    actor, whole = Path(words[2]), Path(words[-1])
    (actor / "huggingface").mkdir(parents=True)
    config = LlamaConfig(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(actor / "huggingface")
    tokenizer().save_pretrained(actor / "huggingface")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/init", rank=0, world_size=1)
    mesh = init_device_mesh("cpu", (1,), mesh_dim_names=("fsdp",))
    state = {name: distribute_tensor(value, mesh, [Shard(0)]) for name, value in model.state_dict().items()}
    torch.save(state, actor / "model_world_size_1_rank_0.pt")
    (actor / "fsdp_config.json").write_text('{"world_size": 1, "FSDP_version": 2}')
    torch.distributed.destroy_process_group()
    assert ran(words).strip().endswith(f"done: {whole}")
    again = AutoModelForCausalLM.from_pretrained(whole)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name].float(), value.to(torch.bfloat16).float()) or torch.equal(
            again.state_dict()[name], value
        )


def test_no_session_is_lost_without_words() -> None:
    session = SimpleNamespace(windows=(), reward=0.0, terms={})
    assert outputs(session) == []
