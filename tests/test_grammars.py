"""Texts that must match a grammar: nothing else is drawn, and what is drawn is scored as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("llguidance")

from memorist import catalogue  # noqa: E402
from memorist.decision import Distribution, Observation, Stop  # noqa: E402
from memorist.errors import PolicyError, RecipeError  # noqa: E402
from memorist.memory.profile_edits import read_edits  # noqa: E402
from memorist.memory.profile_grammar import profile_grammar  # noqa: E402
from memorist.models.causal import CausalPolicy  # noqa: E402
from memorist.models.grammars import along  # noqa: E402
from memorist.models.registry import open_policy  # noqa: E402
from memorist.models.rows import Unit, pack  # noqa: E402
from memorist.models.sampler import Request  # noqa: E402

SMALL = "Root\n  Branch: Name, Home{City, Street}\n"


@pytest.fixture(scope="module")
def policy() -> CausalPolicy:
    return open_policy("bundled")


@pytest.fixture
def schema(tmp_path: Path) -> Iterator[str]:
    file = tmp_path / "small.txt"
    file.write_text(SMALL)
    yield f"profile-edits:{file}"


def ask(grammar: str, tokens: int = 60) -> Observation:
    return Observation("Known:\nNew:\nI live in Oslo.\nEdits:\n", max_tokens=tokens, grammar=grammar)


@pytest.mark.parametrize("drawn", [Distribution(), Distribution(temperature=2.0, top_k=4), Distribution(top_p=0.9)])
def test_whatever_is_drawn_is_legal_and_scored_as_it_was(
    policy: CausalPolicy, schema: str, drawn: Distribution
) -> None:
    free = Observation("Known:\nNew:\nI live in Oslo.\nEdits:\n", max_tokens=20)
    requests = [Request(ask(schema), drawn, seed) for seed in range(24)] + [Request(free, drawn, 0)]
    actions = policy.sample(requests)
    ended = [read_edits(one.text) for one in actions[:-1] if one.stop is Stop.END]
    assert ended and all(read.found and not read.bad for read in ended)
    paths = {edit.path for read in ended for edit in read.found}
    assert paths <= {"", "Root.Branch.Name", "Root.Branch.Home.City", "Root.Branch.Home.Street"}
    assert {one.distribution.grammar for one in actions} == {schema, ""}
    with torch.no_grad():
        scores = [policy.score(batch) for batch in pack([Unit(a, 1.0, 1.0) for a in actions], budget=4000)]
    assert torch.allclose(
        torch.cat(scores).sort().values, torch.tensor([x for a in actions for x in a.logprobs]).sort().values, atol=1e-4
    )


def test_what_a_leaf_is_called_alone_is_no_choice(policy: CausalPolicy, tmp_path: Path) -> None:
    file = tmp_path / "one.txt"
    file.write_text("Root\n  Branch: Name\n")
    [action] = policy.sample([Request(ask(f"profile-edits:{file}"), Distribution(temperature=0.0), 0)])
    written = policy.tokenizer.decode(action.tokens)
    assert written.startswith(("ADD(Root.Branch.Name, ", "UPDATE(Root.Branch.Name, ", "DELETE(Root.", "NO_OP()"))


def test_the_released_trunk_is_a_grammar_of_its_305_leaves() -> None:
    paths = profile_grammar().splitlines()[2]
    assert paths.count('"') == 2 * 305


def test_one_that_is_not_there_or_cannot_be_read_is_refused(
    policy: CausalPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match="nothing-like-it"):
        policy.sample([Request(ask("nothing-like-it"), Distribution(), 0)])
    monkeypatch.setitem(catalogue.BUILT_IN["grammars"], "broken", "test_grammars:broken")
    with pytest.raises(PolicyError, match="cannot be read"):
        policy.sample([Request(ask("broken"), Distribution(), 0)])


def test_a_text_that_is_whole_can_only_end(policy: CausalPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalogue.BUILT_IN["grammars"], "answer", "test_grammars:answer")
    actions = policy.sample([Request(ask("answer"), Distribution(temperature=2.0), seed) for seed in range(20)])
    assert {action.text for action in actions} == {"yes", "no"} and all(a.stop is Stop.END for a in actions)
    with torch.no_grad():
        [batch] = pack([Unit(a, 1.0, 1.0) for a in actions], budget=4000)
        assert torch.allclose(policy.score(batch), torch.from_numpy(batch.old), atol=1e-5)
    with pytest.raises(PolicyError, match="does not follow its grammar"):
        along(policy.grammars, "answer", policy.encode(ask("answer"), "maybe").tokens)


def answer(given: str) -> str:
    return 'start: "yes" | "no"'


def broken(given: str) -> str:
    return 'start: "a" ('
