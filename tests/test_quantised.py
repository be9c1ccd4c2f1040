"""Weights as integers: less memory, nearly the same answers, and no learning."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from memorist.decision import Distribution, Observation  # noqa: E402
from memorist.errors import PolicyError, RecipeError  # noqa: E402
from memorist.models import quantised  # noqa: E402
from memorist.models.quantised import weight_bytes  # noqa: E402
from memorist.models.registry import open_policy  # noqa: E402
from memorist.models.rows import Unit, pack  # noqa: E402
from memorist.models.sampler import Request  # noqa: E402
from memorist.recipe import read_recipe  # noqa: E402

PROMPTS = [
    "Memories:\n1 Ana likes tea\nNew:\nAna likes coffee now\nOperations:\n",
    "New:\nBo lives in Rom\nOperations:\n",
]
REQUESTS = [Request(Observation(prompt, max_tokens=12), Distribution(temperature=0.0), 0) for prompt in PROMPTS]


def scores(policy: object, actions: list[object]) -> torch.Tensor:
    with torch.no_grad():
        units = [Unit(action, 1.0, 1.0) for action in actions]  # type: ignore[arg-type]
        return torch.cat([policy.score(batch) for batch in pack(units, budget=10_000)])  # type: ignore[attr-defined]


class TestIntegers:
    def test_they_take_less_and_say_nearly_the_same(self) -> None:
        pytest.importorskip("bitsandbytes")
        whole, small = open_policy("bundled"), open_policy("int8:bundled")
        assert small.name == "int8:bundled"
        in_bf16 = 2 * sum(p.numel() for p in whole.parameters())
        assert weight_bytes(whole.model) == 2 * in_bf16
        # A quarter of this model are embeddings, which stay as they are.
        assert weight_bytes(small.model) < 0.65 * in_bf16
        actions = whole.sample(REQUESTS)
        assert [a.text for a in small.sample(REQUESTS)] == [a.text for a in actions]
        assert float((scores(whole, actions) - scores(small, actions)).abs().max()) < 0.3
        assert weight_bytes(small.model) < 0.65 * in_bf16  # nor are scales lost from sight once they are used

    def test_a_model_that_sees_too(self, tmp_path: Path) -> None:
        pytest.importorskip("bitsandbytes")
        pytest.importorskip("PIL")
        from memorist.tasks.aerial.data import AerialData
        from seeing import tiny

        whole = tiny(tied=True)
        whole.save(tmp_path)
        small = open_policy(f"int8:{tmp_path}")
        [task] = AerialData(questions=1).tasks(0)
        asked = [
            Request(Observation(task.asked, max_tokens=8, pictures=task.pictures), Distribution(temperature=0.0), 0)
        ]
        actions = whole.sample(asked)
        small.sample(asked)
        assert small.sees and float((scores(whole, actions) - scores(small, actions)).abs().max()) < 0.1
        assert weight_bytes(small.model) < 2 * sum(p.numel() for p in whole.parameters())

    def test_they_do_not_learn(self) -> None:
        recipe = {
            "agent": {"name": "memory-r1"}, "models": {"manager": "int8:bundled", "answerer": "bundled"},
            "data": {"kind": "dialogues"}, "stages": [{"kind": "rl", "role": "manager"}],
        }  # fmt: skip
        with pytest.raises(RecipeError, match=r"'int8:bundled'; integers can act and not learn"):
            read_recipe(recipe)
        assert read_recipe(recipe | {"stages": [{"kind": "rl", "role": "answerer"}]})

    def test_without_the_library_it_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(quantised, "find_spec", lambda name: None)
        with pytest.raises(PolicyError, match=r"pip install 'memorist\[int8\]'"):
            open_policy("int8:bundled")

    def test_an_adapter_alone_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "adapter_config.json").write_text("{}")
        with pytest.raises(PolicyError, match="is an adapter"):
            open_policy(f"int8:{tmp_path}")
