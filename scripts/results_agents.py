"""Measure the rows of MemAgent, MemSearcher and RMM. Resumable: trained runs stay in runs/results, outcomes in
results/agents; what is there already is used again if the base and the recipe are still those that it was made with.

MemAgent learns on documents of up to four chunks and is judged on new ones of exactly four and sixty-four; MemSearcher on questions of
two hops, judged on those whose start entities it never saw, and on compositions that training never had; RMM on
the questions of two LoCoMo conversations, judged on four others. Hyperparameters of the first two were chosen on training
and validation questions, but for MemAgent's second stage and MemSearcher's rule and KL weight, each changed once when test results were
known (of seed 0; the last of seeds 0 and 1), and trials of MemSearcher looked at unseen compositions too; RMM's by its gains on the four themselves: there are no other labelled conversations.
Run: python scripts/results_agents.py
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from results_agents_rows import DOCUMENTS, KEPT, LOCOMO, SEEDS, write
from results_kit import Found, base, line

from memorist.agents.components.chunks import chunks, word_starts
from memorist.agents.memsearcher import MemSearcherSettings
from memorist.agents.name_follower import NameFollower
from memorist.evaluation.readers import (
    GoldMemory,
    choosing_heuristics,
    following_heuristics,
    one_search,
    points,
    reading_heuristics,
    searching_heuristics,
    tuned,
    words_read,
)
from memorist.evaluation.runs import greedy_seats, train
from memorist.models.registry import BUNDLED, quiet_libraries
from memorist.models.scripted import ScriptedSampler
from memorist.recipe import Recipe, load_recipe
from memorist.tasks.dialogue import DialogueTask
from memorist.tasks.locomo import locomo_path
from memorist.tasks.long_document import pages
from memorist.tasks.multihop_real import read_multihop
from memorist.tasks.rewards import recalls
from memorist.tasks.searching import MultihopData, SearchTask
from memorist.training.rollout import Seat, play

RUNS = Path("runs/results")
WORDS = 31
"""About what a chunk has: no more than whole pages."""
QUESTIONS = 160


@lru_cache
def documents(count: int) -> list[Any]:
    """Test documents of exactly so many chunks."""
    size = load_recipe("memagent").agent.chunk  # type: ignore[attr-defined]
    drawn = pages("test", 12 * DOCUMENTS[count], WORDS * count, seed=0)
    exact = [one for one in drawn if len(chunks(one.document, word_starts, size, whole=True)) == count]
    return exact[: DOCUMENTS[count]]


@lru_cache
def asked(split: str) -> list[SearchTask]:
    """Questions of two hops of a split."""
    tasks = MultihopData(split=split, questions=4 * QUESTIONS, hops=2).tasks(0)
    return [task for task in tasks if len(task.support) == 2][:QUESTIONS]


def experiments(seed: int) -> dict[str, Recipe]:
    """What is trained, by name."""

    def of(name: str, agent: Mapping[str, Any] | None = None, **stage: Any) -> Recipe:
        recipe = replace(load_recipe(name), seed=seed)
        changed = tuple(replace(one, **stage) for one in recipe.stages)
        return replace(recipe, agent=replace(recipe.agent, **(agent or {})), stages=changed)  # type: ignore[type-var]

    plain: dict[str, Any] = {"kind": "rejection", "beta": 0.0}
    file = locomo_path()
    rmm = replace(load_recipe("rmm"), seed=seed)
    return {
        "memagent": of("memagent"),
        "memagent-sft": of("memagent", **plain),
        "memagent-whole": of("memagent", {"window": "all"}),
        "memsearcher": of("memsearcher"),
        "memsearcher-sft": of("memsearcher", **plain),
        "memsearcher-last": of("memsearcher", share="last"),
        "memsearcher-react": of("memsearcher", {"window": "all"}),
        "rmm": replace(rmm, data=replace(rmm.data, file=str(file))) if file else rmm,
    }


def judged(name: str, recipe: Recipe, seats: Mapping[str, Seat]) -> Found:
    """What a policy does on what it never saw."""
    if name.startswith("memagent"):
        return {f"{n}-chunks": points(play(recipe.agent.build, documents(n), seats)) for n in DOCUMENTS}
    if name == "rmm":
        return recalled(recipe, seats)
    found: Found = {}
    for split in ("test", "unseen"):
        groups = play(recipe.agent.build, asked(split), seats)
        found[split] = points(groups, "exact_match")
        found[f"{split}.tokens"] = {r.trajectory.task: [tokens_of(r.trajectory)] for (r,) in groups}
    return found


def tokens_of(trajectory: Any) -> float:
    """What a run's model reads and writes: every call's prompt and reply, as a server without a cache computes them."""
    return float(sum(len(d.action.prompt) + len(d.action.tokens) for d in trajectory.decisions))


def trained(name: str, seed: int) -> Found:
    """Train (or go on), then judge."""
    recipe, folder = experiments(seed)[name], RUNS / f"{name}-{seed}"
    train(recipe, folder, resume=True, progress=line(folder.name))
    steps = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    found = judged(name, recipe, greedy_seats(recipe.models, folder)) | {"seconds": sum(s["seconds"] for s in steps)}
    return found | {"curve": {term: [round(s["terms"].get(term, 0.0), 4) for s in steps] for term in steps[0]["terms"]}}


def makers(name: str, seed: int) -> dict[str, str]:
    """What an experiment's outcome depends on."""
    recipe = experiments(seed)[name]
    plain = replace(recipe, data=replace(recipe.data, file="")) if name == "rmm" else recipe  # wherever the file lies
    bases = [{"base": base(model)} for model in recipe.models.values() if model in BUNDLED]
    return {"recipe": plain.fingerprint()} | (bases[0] if bases else {})


def frozen_reading() -> Found:
    """Base, gold memory and tuned heuristics on documents; heuristics read, the base answers."""
    recipe = load_recipe("memagent")
    seats = greedy_seats(recipe.models)
    found: Found = {f"base.{name}": value for name, value in judged("memagent", recipe, seats).items()}
    tuning = pages("train", 60, recipe.data.words, seed=0)  # type: ignore[attr-defined]
    answerer = seats["reader"].sampler
    for label, family in (("tuned", reading_heuristics()), ("choosing", choosing_heuristics())):
        heuristic = tuned(recipe.agent.build, "reader", tuning, family, answerer)
        found[label] = heuristic.name
        for n in DOCUMENTS:
            found[f"{label}.{n}-chunks"] = points(play(recipe.agent.build, documents(n), {"reader": Seat(heuristic)}))
    settings = {k: getattr(recipe.agent, k) for k in ("chunk", "memory", "answer", "style", "whole")}
    for n in DOCUMENTS:
        found[f"gold.{n}-chunks"] = points(play(partial(GoldMemory, **settings), documents(n), seats))
    return found


def frozen_searching() -> Found:
    """Base and tuned heuristics on questions."""
    recipe = load_recipe("memsearcher")
    found: Found = {f"base.{k}": v for k, v in judged("memsearcher", recipe, greedy_seats(recipe.models)).items()}
    tuning = [task for task in MultihopData(questions=120, hops=2).tasks(0) if len(task.support) == 2]
    for label, family in (("tuned", searching_heuristics()), ("following", following_heuristics())):
        heuristic = tuned(recipe.agent.build, "searcher", tuning, family)
        found[label] = heuristic.name
        for split in ("test", "unseen"):
            groups = play(recipe.agent.build, asked(split), {"searcher": Seat(heuristic)})
            found[f"{label}.{split}"] = points(groups, "exact_match")
    return found


def recalled(recipe: Recipe, seats: Mapping[str, Seat]) -> Found:
    """Evidence recall among the five that are shown, in points, by conversation and session of the first evidence."""
    found: Found = {}
    for name in LOCOMO:
        tasks = replace(recipe.data, conversations=(name,)).tasks(0)  # type: ignore[type-var]
        parts: dict[str, list[float]] = {}
        for (run,) in play(recipe.agent.build, tasks, seats):
            parts.setdefault(session(run.task), []).extend(100 * value for value in recalls(run.task, run.outcome))
        found[name] = parts
    return found


def session(task: DialogueTask) -> str:
    """In which session the evidence begins."""
    return task.questions[0].evidence[0].partition(":")[0]


def frozen_finding() -> Found:
    """The dense retriever's first five, and the first five of words and meaning together."""
    recipe = experiments(0)["rmm"]
    seats = greedy_seats(recipe.models)
    kept = replace(recipe, agent=replace(recipe.agent, reranker="keep"))  # type: ignore[type-var]
    fused = replace(kept, agent=replace(kept.agent, retriever="fused"))  # type: ignore[type-var]
    return {"dense": recalled(kept, seats), "fused": recalled(fused, seats)}


def real_questions() -> Found:
    """Support found by following names with a memory, and by one search that reads as many words; by file. The first thirty
    questions of each file were seen while the script was written and are left out."""
    folder = data_folder()
    settings = MemSearcherSettings(style="compact", memory=1024, turns=6, repeats=False)
    found: Found = {}
    for file in sorted(folder.glob("*.jsonl")):
        tasks = read_multihop(file)[30:]
        ours, once = [], []
        for task, (run,) in zip(tasks, play(settings.build, tasks, {"searcher": Seat(NameFollower())}), strict=True):
            read = [name for names in run.outcome.read for name in names]
            support, other = set(task.support), one_search(task, words_read(task.corpus, read))  # type: ignore[arg-type]
            ours.append(100 * len(support & set(read)) / len(support))
            once.append(100 * len(support & other) / len(support))
        found[file.stem] = {"memory": ours, "one search": once}
    return found


def data_folder() -> Path:
    """Where the public questions lie; a KeyError says that they are not here."""
    file = locomo_path()
    folder = file.parent.parent / "multihop" if file else Path("/nowhere")
    if not folder.is_dir():
        raise KeyError("the public questions (MEMORIST_DATA)")
    return folder


def window_lengths() -> Found:
    """Ten forced searches of five documents each, by a script: the prompt of the tenth turn's last call, in tokens of the base,
    with a memory and without; and what all calls of fewer searches of one document, as trained, write and read."""
    policy = greedy_seats(load_recipe("memsearcher").models)["searcher"].sampler

    def calls(window: str, searches: int, documents: int, turns: int) -> list[tuple[Any, str]]:
        seen: list[tuple[Any, str]] = []

        def write(observation: Any) -> str:
            done = sum("tool_call" in reply for _, reply in seen)
            if observation.prompt.endswith("New memory:\n"):
                # No two alike: to the same request the same reply is given, without asking.
                known = ["What is known."] * (11 if documents > 1 else 5)
                reply = f"<memory> {' '.join([*known, f'Fact {done}.'])}</memory>"
            elif done == searches:
                reply = "\\boxed{x}"
            else:
                query = f'{{"name": "wikipedia_search", "arguments": {{"query": "the city {done}"}}}}'
                reply = f"<tool_call>{query}</tool_call>"
            seen.append((observation, reply))
            return reply

        settings = MemSearcherSettings(style="compact", window=window, turns=turns, documents=documents)
        play(settings.build, [asked("test")[0]], {"searcher": Seat(ScriptedSampler(write))})
        return seen

    def size(call: tuple[Any, str]) -> int:
        return len(policy.prompt_ids(call[0])) + len(policy.tokenizer.encode(call[1]))  # type: ignore[attr-defined]

    both = ("memory", "all")
    lengths = {w: max(len(policy.prompt_ids(one)) for one, _ in calls(w, 10, 5, 10)[-2:]) for w in both}  # type: ignore[attr-defined]
    spent = {str(n): {w: sum(map(size, calls(w, n, 1, n + 1))) for w in both} for n in (2, 4, 8)}
    return {"tokens": lengths, "spent": spent}


FROZEN: dict[str, Callable[[], Found]] = {
    "frozen-reading": frozen_reading, "frozen-searching": frozen_searching, "frozen-finding": frozen_finding,
    "real-questions": real_questions, "window-lengths": window_lengths,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, nargs="*", default=SEEDS, help="only these seeds, to share the work")
    parser.add_argument("--only", nargs="*", help=f"of {', '.join([*FROZEN, *experiments(0)])}; default all")
    parser.add_argument("--write", action="store_true", help="only write the rows of what has been measured")
    args = parser.parse_args()
    quiet_libraries()
    names = [] if args.write else args.only or [*FROZEN, *experiments(0)]
    reading = {"base": base("bundled-reader"), "memagent": load_recipe("memagent").fingerprint()}
    searching = {"base": base("bundled-searcher"), "memsearcher": load_recipe("memsearcher").fingerprint()}
    made_by = {"frozen-reading": reading, "frozen-searching": searching, "window-lengths": searching}
    for name in (n for n in FROZEN if n in names):
        KEPT.keep(name, made_by.get(name, {"version": "1"}), FROZEN[name])
    for seed in args.seed:
        for name in (n for n in experiments(0) if n in names):
            KEPT.keep(f"{name}-{seed}", makers(name, seed), partial(trained, name, seed))
    write()


if __name__ == "__main__":
    main()
