"""What no recipe may say: numbers that are impossible, names of nothing, parts that do not fit each other."""

from __future__ import annotations

from typing import Any

from memorist.catalogue import find, offered
from memorist.errors import RecipeError, nearest, need_known

TRUNCATED = ("counted", "left-out")
STAGES = ("rl", "rejection", "sft", "distill", "reward")
PRECISIONS = ("float32", "bf16")
LEADS = ("sampled", "greedy")
REFERENCES = ("stage", "run")
PATHS = ("own", "teacher")
"""Whose tokens a policy is distilled on."""
DIVERGENCES = ("reverse", "forward")
"""Of the policy from its teacher, and of the teacher from the policy."""
OPTIMIZERS = ("adamw", "sgd")
ALONE = ("reinforce", "fixed", "counterfactual", "ppo")
"""Credit rules that do not compare siblings."""


def check(recipe: Any, where: str) -> None:
    """Refuse a `Recipe` that cannot work.

    Raises:
        RecipeError: a value is wrong; the message names the place and the nearest valid one.
    """
    if recipe.seed < 0:
        raise RecipeError(f"{where}: seed is {recipe.seed}; expected 0 or more")
    if recipe.checkpoint_every < 1:
        raise RecipeError(f"{where}: checkpoint_every is {recipe.checkpoint_every}; expected 1 or more")
    recipe.agent.check(f"{where}: agent")
    recipe.data.check(f"{where}: data")
    _check_fit(recipe, where)
    if recipe.weights.precision not in PRECISIONS:
        given = recipe.weights.precision
        raise RecipeError(f"{where}: weights.precision is {given!r}; {nearest(given, PRECISIONS)}")
    if recipe.weights.lora < 0 or recipe.weights.lora_alpha < 1:
        raise RecipeError(
            f"{where}: weights.lora is {recipe.weights.lora} and lora_alpha {recipe.weights.lora_alpha}; expected a "
            "rank of 0 (all weights learn) or more, and 1 or more"
        )
    if recipe.weights.together < 0:
        raise RecipeError(f"{where}: weights.together is {recipe.weights.together}; expected 0 (all) or more")
    if recipe.log_every < 0:
        raise RecipeError(f"{where}: log_every is {recipe.log_every}; expected 0 (no trajectories) or more")
    for name, role in recipe.judges.items():
        need_known(f"{where}: judges.{name}", role, recipe.models)
        if name in recipe.models or not any((s.kind, s.role) == ("reward", name) for s in recipe.stages):
            raise RecipeError(
                f"{where}: judges.{name} is a role's name, or no stage of kind 'reward' teaches it; expected a name of "
                "its own and such a stage"
            )
    for name, data in recipe.evaluations.items():
        data.check(f"{where}: evaluations.{name}")
        _check_data(recipe.agent, data, f"{where}: evaluations.{name}")
    for i, stage in enumerate(recipe.stages):
        place = f"{where}: stages[{i}]"
        _check_between(recipe, i, place)
        _check_model(recipe, stage, place)
        if stage.kind not in STAGES:
            raise RecipeError(f"{place}.kind is {stage.kind!r}; {nearest(stage.kind, STAGES)}")
        if stage.role not in recipe.models and stage.kind != "reward":
            raise RecipeError(
                f"{place}.role is {stage.role!r}, which is not among models; {nearest(stage.role, recipe.models)}"
            )
        for name in ("steps", "tasks", "siblings", "dialogues", "leads", "questions", "updates", "budget"):
            if getattr(stage, name) < 1:
                raise RecipeError(f"{place}.{name} is {getattr(stage, name)}; expected 1 or more")
        if stage.kind not in ("sft", "distill") and stage.rule not in ALONE and stage.siblings < 2:
            raise RecipeError(
                f"{place}.siblings is {stage.siblings}; {stage.rule!r} compares siblings, so set 2 or more"
            )
        if stage.cut != "whole" and recipe.checkpoint_every % stage.leads:
            raise RecipeError(
                f"{where}: checkpoint_every is {recipe.checkpoint_every}, not a multiple of {place}.leads "
                f"({stage.leads}); a run could not go on with the same numbers"
            )
        for name, what in (("top_k", "0 (all tokens)"), ("redraw", "0 (never)"), ("rewards_from", "0 (at once)")):
            if getattr(stage, name) < 0:
                raise RecipeError(f"{place}.{name} is {getattr(stage, name)}; expected {what} or more")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(stage, name) <= 1:
                raise RecipeError(f"{place}.{name} is {getattr(stage, name):g}; expected 0 to 1")
        if not 0 <= stage.again < 1:
            raise RecipeError(f"{place}.again is {stage.again:g}; expected a share of 0 or more and below 1")
        if not 0 <= stage.cooldown <= 1:
            raise RecipeError(f"{place}.cooldown is {stage.cooldown:g}; expected a share of 0 to 1")
        if stage.truncated not in TRUNCATED:
            raise RecipeError(f"{place}.truncated is {stage.truncated!r}; {nearest(stage.truncated, TRUNCATED)}")
        need_known(f"{place}.optimizer", stage.optimizer, OPTIMIZERS)
        need_known(f"{place}.lead", stage.lead, LEADS)
        for name in ("beta", "entropy", "cap", "clip_low", "clip_high", "dual", "epsilon"):
            if getattr(stage, name) < 0:
                raise RecipeError(f"{place}.{name} is {getattr(stage, name):g}; expected 0 or more")
        for name in ("lr", "temperature", "grad_norm", "critic_lr", "value_clip"):
            if getattr(stage, name) <= 0:
                raise RecipeError(f"{place}.{name} is {getattr(stage, name):g}; expected more than 0")


def _check_model(recipe: Any, stage: Any, place: str) -> None:
    """Refuse a model that cannot learn."""
    if recipe.models.get(stage.role, "").startswith("int8:"):
        raise RecipeError(
            f"{place}.role is {stage.role!r}, whose model is {recipe.models[stage.role]!r}; integers can act and "
            "not learn: expected the name alone"
        )


def _check_paths(stage: Any, place: str) -> None:
    """Refuse what only a teacher's own paths allow."""
    need_known(f"{place}.paths", stage.paths, PATHS)
    need_known(f"{place}.divergence", stage.divergence, DIVERGENCES)
    if stage.align < 0:
        raise RecipeError(f"{place}.align is {stage.align:g}; expected 0 or more")
    if stage.kind != "distill" and (stage.paths != "own" or stage.align):
        raise RecipeError(f"{place}.paths and align are of kind 'distill'; this stage is of kind {stage.kind!r}")
    if stage.align and stage.paths != "teacher":
        raise RecipeError(f"{place}.align is {stage.align:g} on the policy's own paths; expected 0, or paths 'teacher'")
    if stage.divergence != "reverse" and stage.paths != "teacher":
        raise RecipeError(
            f"{place}.divergence is {stage.divergence!r} on the policy's own paths; expected 'reverse', or paths "
            "'teacher'"
        )


def _check_between(recipe: Any, number: int, place: str) -> None:
    """Refuse what a stage cannot have of its own, of those before it, or of evaluations."""
    stage = recipe.stages[number]
    if stage.kind == "reward" and (stage.role not in recipe.judges or not hasattr(stage.data, "pairs")):
        raise RecipeError(
            f"{place} is of kind 'reward' with role {stage.role!r} and data {getattr(stage.data, 'kind', None)!r}; "
            f"expected a role that judges names ({', '.join(recipe.judges) or 'none yet'}), and data of pairs"
        )
    if recipe.judges and stage.rule == "counterfactual":
        raise RecipeError(f"{place}.rule is 'counterfactual', which no judge can price; expected another rule")
    if stage.data is not None:
        stage.data.check(f"{place}.data")
        _check_data(recipe.agent, stage.data, f"{place}.data")
    if stage.kind == "distill" and stage.teacher in offered("teachers"):
        raise RecipeError(
            f"{place}.teacher is {stage.teacher!r}, a heuristic, which holds no token for likelier than "
            "another; expected a local model"
        )
    _check_paths(stage, place)
    if not 0 <= stage.replay < 1:
        raise RecipeError(f"{place}.replay is {stage.replay:g}; expected a share of 0 or more and below 1")
    if stage.replay and (not number or stage.cut != "whole"):
        raise RecipeError(f"{place}.replay is {stage.replay:g}; expected 0 in a first stage, and where tasks are cut")
    if stage.replay and (
        int(stage.replay * stage.tasks) == 0
        or any(s.cut != "whole" or s.kind == "reward" for s in recipe.stages[:number])
    ):
        raise RecipeError(
            f"{place}.replay is {stage.replay:g} of {stage.tasks} tasks; expected a share of one task or more, and "
            "only stages before it whose tasks are whole"
        )
    need_known(f"{place}.reference", stage.reference, REFERENCES)
    for asked in stage.require:
        name, dot, _ = asked.rpartition(".")
        if not dot or name not in recipe.evaluations:
            known = nearest(name or asked, recipe.evaluations) if recipe.evaluations else "the recipe has none"
            raise RecipeError(f"{place}.require has {asked!r}; expected EVALUATION.MEASURE, of evaluations: {known}")
        of_pairs = [f"{judge}{what}" for judge in recipe.judges for what in ("", "-steps")]
        pairs, measure = hasattr(recipe.evaluations[name], "pairs"), asked.rpartition(".")[2]
        if pairs != (measure in of_pairs):
            expected = ", ".join(of_pairs) if pairs else "what tasks measure; judges are measured on data of pairs"
            raise RecipeError(
                f"{place}.require has {asked!r}, and {name} is data of kind {recipe.evaluations[name].kind!r}; "
                f"expected {expected}"
            )


def _check_data(agent: Any, data: Any, where: str) -> None:
    if data.exercise != agent.exercise:
        fitting = sorted(n for n, point in offered("data").items() if point.load().exercise == agent.exercise)
        raise RecipeError(
            f"{where}: agent {agent.name!r} does {agent.exercise} tasks and data {data.kind!r} gives {data.exercise} "
            f"tasks; expected data.kind {', '.join(fitting) or 'of another package'}"
        )


def _check_fit(recipe: Any, where: str) -> None:
    """Refuse data that the agent cannot be exercised on, and models that are not its roles."""
    agent, data = recipe.agent, recipe.data
    _check_data(agent, data, where)
    for i, name in enumerate(getattr(data, "rewards", ())):
        needed = getattr(find("rewards", name, f"{where}: data.rewards[{i}]"), "needs", "")
        if needed and needed not in agent.roles:
            raise RecipeError(
                f"{where}: data.rewards[{i}] is {name!r}, which rewards what a {needed} chooses, and agent "
                f"{agent.name!r} has none; expected agent.{needed}: learned, or another reward"
            )
    if set(recipe.models) != set(agent.roles):
        raise RecipeError(
            f"{where}: models is for {', '.join(sorted(recipe.models)) or 'no role'}; expected one for each role of "
            f"{agent.name!r}: {', '.join(agent.roles)}"
        )
