"""verl (0.9) as the cluster: our agents plugged in through its AgentLoop, nothing of it forked.

`write` makes what its trainer reads (tasks as parquet, an agent-loop file, the recipe, the command);
`MemoristAgentLoop` plays a session in its workers; `convert` makes a Hugging Face folder of its sharded checkpoint.
Rewards are computed here, in the session; verl's GRPO takes each session's last window and gives all windows of the
session its advantage, as ours does.

Only the contract is tested here (import, sessions through a scripted server, ids, masks, advantages): no run on GPUs.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml
from verl.experimental.agent_loop import AgentLoopBase, AgentLoopOutput

from memorist.decision import Distribution
from memorist.errors import CheckpointError
from memorist.models.registry import BUNDLED, bundled_folder
from memorist.recipe import Recipe, to_plain
from memorist.training.launch.served import RULES, ServedRun, known, play_served, refuse

AGENT = "memorist"


class MemoristAgentLoop(AgentLoopBase):
    """Plays one session of a recipe's agent.

    Args:
        recipe: the recipe's file, from the agent-loop file.
        given: what verl hands every loop.
    """

    def __init__(self, *, recipe: str, **given: Any) -> None:
        super().__init__(**given)
        self.recipe, self.tasks = known(recipe)

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> list[Any]:
        """The windows of a run, its reward on the last one.

        Args:
            sampling_params: of verl's rollout.
            kwargs: a row of the parquet, with `extra_info` naming the task.
        """
        params = dict(sampling_params)
        top_k, priority = max(0, int(params.get("top_k", 0))), int(kwargs.get("priority", 0))
        drawn = Distribution(float(params.get("temperature", 1.0)), float(params.get("top_p", 1.0)), top_k)

        async def generate(prompt: Sequence[int], most: int) -> Any:
            return await self.server_manager.generate(
                request_id=uuid4().hex, prompt_ids=list(prompt), sampling_params={**params, "max_tokens": most},
                priority=priority,
            )  # fmt: skip

        task = self.tasks[int(kwargs["extra_info"]["index"])]
        number = int(kwargs.get("session_id", 0))
        return outputs(await play_served(self.recipe, task, self.tokenizer, generate, drawn, number=number))


def outputs(session: ServedRun) -> list[Any]:
    """A session as verl's outputs: one for each window, the reward and its terms on the last."""
    found = []
    for window in session.windows:
        turns = 1 + sum(window.mask[i : i + 2] == (0, 1) for i in range(len(window.mask)))
        found.append(
            AgentLoopOutput(
                prompt_ids=list(window.prompt),
                response_ids=list(window.response),
                response_mask=list(window.mask),
                response_logprobs=list(window.logprobs),
                num_turns=turns,
                metrics={},
                extra_fields={"turn_scores": [], "tool_rewards": []},
            )
        )
    if found:
        found[-1].reward_score = session.reward
        found[-1].extra_fields["reward_extra_info"] = dict(session.terms)
    return found


def write(recipe: Recipe, folder: Path, model: str = "") -> list[str]:
    """What verl's trainer reads, into a folder; the command that starts it, as arguments.

    Args:
        model: a Hugging Face folder or name in place of the recipe's model of the role that learns.

    Raises:
        RecipeError: the recipe asks for what verl's trainer has not.
    """
    import pandas

    stage = refuse(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(to_plain(recipe), sort_keys=False), encoding="utf-8")
    loop = {
        "name": AGENT,
        "_target_": f"{__name__}.MemoristAgentLoop",
        "recipe": str((folder / "recipe.yaml").resolve()),
    }
    (folder / "agents.yaml").write_text(yaml.safe_dump([loop], sort_keys=False), encoding="utf-8")
    tasks = recipe.data.tasks(recipe.seed)
    rows = [
        {
            "data_source": recipe.name,
            "prompt": [{"role": "user", "content": task.id}],
            "agent_name": AGENT,
            "reward_model": {"style": "rule", "ground_truth": ""},
            "extra_info": {"index": i, "task": task.id},
        }
        for i, task in enumerate(tasks)
        if stage.least <= getattr(task, "size", 0) and (not stage.limit or task.size <= stage.limit)
    ]
    pandas.DataFrame(rows).to_parquet(folder / "tasks.parquet")
    name = model or recipe.models[stage.role]
    weights = str(bundled_folder(name)) if name in BUNDLED else name
    settings: dict[str, Any] = {
        "data.train_files": folder / "tasks.parquet", "data.val_files": folder / "tasks.parquet",
        "data.train_batch_size": stage.tasks, "data.return_raw_chat": True,
        "actor_rollout_ref.model.path": weights,
        "actor_rollout_ref.rollout.n": stage.siblings,
        "actor_rollout_ref.rollout.temperature": stage.temperature,
        "actor_rollout_ref.rollout.top_k": stage.top_k or -1,
        "actor_rollout_ref.rollout.calculate_log_probs": True,
        "actor_rollout_ref.rollout.agent.agent_loop_config_path": folder / "agents.yaml",
        "actor_rollout_ref.rollout.agent.default_agent_loop": AGENT,
        "actor_rollout_ref.actor.optim.lr": stage.lr,
        "actor_rollout_ref.actor.optim.lr_warmup_steps": stage.warmup,
        "actor_rollout_ref.actor.ppo_mini_batch_size": stage.tasks,
        "actor_rollout_ref.actor.ppo_epochs": stage.updates,
        "actor_rollout_ref.actor.clip_ratio_low": stage.clip_low,
        "actor_rollout_ref.actor.clip_ratio_high": stage.clip_high,
        "actor_rollout_ref.actor.clip_ratio_c": stage.dual, "actor_rollout_ref.actor.grad_clip": stage.grad_norm,
        "actor_rollout_ref.actor.loss_agg_mode": "token-mean",
        "actor_rollout_ref.actor.use_kl_loss": stage.beta > 0, "actor_rollout_ref.actor.kl_loss_coef": stage.beta,
        "actor_rollout_ref.actor.kl_loss_type": {"k1": "kl", "k2": "mse", "k3": "low_var_kl"}[stage.kl],
        "algorithm.adv_estimator": "grpo", "algorithm.norm_adv_by_std_in_grpo": RULES[stage.rule],
        "trainer.total_training_steps": stage.steps, "trainer.default_local_dir": folder / "checkpoints",
    }  # fmt: skip
    command = ["python", "-m", "verl.trainer.main_ppo", *(f"{key}={value}" for key, value in settings.items())]
    (folder / "run.sh").write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', encoding="utf-8")
    return command


def convert(actor: Path, out: Path) -> None:
    """A Hugging Face folder from a checkpoint's actor folder, by verl's own merger.

    Args:
        actor: `checkpoints/global_step_N/actor`.

    Raises:
        CheckpointError: there is none.
    """
    from verl.model_merger.base_model_merger import ModelMergerConfig
    from verl.model_merger.fsdp_model_merger import FSDPModelMerger

    if not list(actor.glob("model_world_size_*_rank_*.pt")):
        raise CheckpointError(
            f"{actor} holds no shards of verl (model_world_size_N_rank_M.pt); expected global_step_N/actor"
        )
    config = ModelMergerConfig(
        operation="merge", backend="fsdp", local_dir=str(actor), target_dir=str(out),
        hf_model_config_path=str(actor / "huggingface"),
    )  # fmt: skip
    merger = FSDPModelMerger(config)
    merger.merge_and_save()
    merger.cleanup()
