"""Policies that see: what stands for a picture is that picture, for every prompt of a batch and sibling of a group."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("PIL")
from PIL import Image

from memorist.decision import Action, Distribution, Media, Observation, Picture, Stop
from memorist.errors import DataError, PolicyError
from memorist.models.adapters import with_adapter
from memorist.models.pictures import read_picture
from memorist.models.registry import open_policy
from memorist.models.rows import Unit, common, merge_key, pack
from memorist.models.sampler import Request
from memorist.models.vision import VisionPolicy
from memorist.tasks.aerial.questions import question
from seeing import CHAT, tiny
from test_pictures import written

POLICY = tiny()


def scene(seed: int, side: int = 56) -> Picture:
    return read_picture(question("count", seed).scene.png(side))


def wide(seed: int) -> Picture:
    """56 down, 112 across."""
    image = Image.new("RGB", (112, 56), (40 * seed % 255, 90, 10))
    image.putpixel((seed, seed), (255, 255, 255))
    return read_picture(written(image))


def asked(*pictures: Picture, text: str = "How many?", most: int = 6, **how: object) -> Observation:
    return Observation(text, max_tokens=most, pictures=pictures, **how)  # type: ignore[arg-type]


def drawn(policy: VisionPolicy, seen: Sequence[Observation], seed: int = 0, siblings: int = 1) -> list[Action]:
    requests = [
        Request(one, Distribution(), seed + n) for n, one in enumerate(o for o in seen for _ in range(siblings))
    ]
    return policy.sample(requests)


def by_the_library(policy: VisionPolicy, action: Action, pictures: Sequence[Picture]) -> torch.Tensor:
    """Log-probabilities of one action by the model's own way from pixels to logits."""
    from memorist.models.pictures import image_of

    ids = torch.tensor([[*action.prompt, *action.tokens]])
    made = policy.processor(images=[image_of(one) for one in pictures], return_tensors="pt")
    kinds = (ids == policy.image).int()
    with torch.no_grad():
        out = policy.model(
            input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=kinds, use_cache=False, **made
        )
    logits = out.logits[0, len(action.prompt) - 1 : -1].float()
    return logits.log_softmax(-1)[torch.arange(len(action.tokens)), list(action.tokens)]


MIXED = [asked(scene(1)), asked(wide(2)), asked(scene(3), wide(4), scene(5)), asked(scene(1), text="Which?")]


class TestSampling:
    def test_tokens_are_drawn_as_the_library_would_for_pictures_of_any_size_and_number(self) -> None:
        for seen, group in zip(MIXED, _grouped(drawn(POLICY, MIXED, siblings=3), 3), strict=True):
            for action in group:
                expected = by_the_library(POLICY, action, seen.pictures)
                assert torch.allclose(torch.tensor(action.logprobs), expected, atol=1e-5)

    def test_another_picture_is_another_prompt(self) -> None:
        one, other = asked(scene(1)), asked(scene(2))
        assert POLICY.prompt(one).ids == POLICY.prompt(other).ids
        first, second = (POLICY.sample([Request(seen, Distribution(), 0)])[0] for seen in (one, other))
        together = drawn(POLICY, [one, other])
        again = POLICY.sample([Request(one, Distribution(), 0), Request(other, Distribution(), 0)])
        assert [a.tokens for a in again] == [first.tokens, second.tokens] and together[0].media != together[1].media
        assert first.logprobs != second.logprobs

    def test_a_picture_is_read_once_for_a_group(self, monkeypatch: pytest.MonkeyPatch) -> None:
        read: list[int] = []
        plain = POLICY.model.get_image_features

        def counted(pixels: torch.Tensor, grid: torch.Tensor) -> object:
            read.append(len(grid))
            return plain(pixels, grid)

        monkeypatch.setattr(POLICY.model, "get_image_features", counted)
        drawn(POLICY, [asked(scene(1)), asked(scene(1), text="Which?")], siblings=8)
        assert read == [1]

    def test_what_stands_for_pictures_is_never_written(self) -> None:
        policy = tiny(1)
        head = policy.model.get_output_embeddings()
        with torch.no_grad():
            head.weight[policy.image] = 50 * head.weight.abs().max()
        for action in drawn(policy, [asked(scene(1), most=40)], siblings=4):
            assert not {policy.image, *policy.around_image} & set(action.tokens)

    def test_a_prompt_that_spells_a_placeholder_is_text(self) -> None:
        prompt = POLICY.prompt(asked(scene(1), text="<|image_pad|> <|vision_start|>"))
        assert prompt.ids.count(POLICY.image) == 16 and len(prompt.media) == 1

    def test_text_alone_is_as_ever(self) -> None:
        seen = asked()
        [action] = drawn(POLICY, [seen])
        assert not action.media and torch.allclose(torch.tensor(action.logprobs), score(POLICY, [action])[0], atol=1e-5)

    @pytest.mark.parametrize("chat", ["", CHAT])
    def test_a_window_goes_on_with_what_was_seen(self, chat: str) -> None:
        policy = tiny(0, chat=chat)
        first = asked(scene(1), system="Look.")
        [action] = drawn(policy, [first])
        later = replace(first.then(action, "And here?"), pictures=(wide(2),))
        prompt = policy.prompt(later)
        assert prompt.ids[: len(action.prompt) + len(action.tokens)] == (*action.prompt, *action.tokens)
        assert [one.grid for one in prompt.media] == [(4, 4), (4, 8)] and prompt.media[:1] == action.media
        [answer] = drawn(policy, [later])
        expected = by_the_library(policy, answer, (scene(1), wide(2)))
        assert torch.allclose(torch.tensor(answer.logprobs), expected, atol=1e-5)

    def test_few_at_once_write_the_same(self) -> None:
        few = tiny()
        few.together = 1
        for one, other in zip(drawn(POLICY, MIXED, siblings=3), drawn(few, MIXED, siblings=3), strict=True):
            assert one.tokens == other.tokens and one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def _grouped(actions: Sequence[Action], size: int) -> list[Sequence[Action]]:
    return [actions[i : i + size] for i in range(0, len(actions), size)]


def score(policy: VisionPolicy, actions: Sequence[Action], *, share: bool = True) -> list[torch.Tensor]:
    """Log-probabilities of each action, in rows that may be trees."""
    units = [Unit(action, 1.0, 1.0) for action in actions]
    found: dict[int, list[float]] = {}
    with torch.no_grad():
        for batch in pack(units, budget=600, share=share):
            for unit, value in zip(batch.unit.tolist(), policy.score(batch).tolist(), strict=True):
                found.setdefault(id(batch.units[unit]), []).append(value)
    return [torch.tensor(found[id(unit)]) for unit in units]


class TestRows:
    @pytest.mark.parametrize("share", [True, False])
    def test_actions_score_as_they_were_drawn(self, share: bool) -> None:
        """The error of group expansion: pictures of several sizes, several of them, many siblings, any order."""
        actions = drawn(POLICY, MIXED, siblings=5)
        order = [7 * n % len(actions) for n in range(len(actions))]
        shuffled = [actions[n] for n in order]
        worst = max(
            float((told - torch.tensor(action.logprobs)).abs().max())
            for told, action in zip(score(POLICY, shuffled, share=share), shuffled, strict=True)
        )
        assert worst <= 1e-5

    def test_what_begins_alike_is_one_tree_and_another_picture_is_not(self) -> None:
        same = drawn(POLICY, [asked(scene(1))], siblings=4)
        [batch] = pack([Unit(action, 1.0, 1.0) for action in same], budget=2000)
        assert len(batch.tokens) == 1 and len(batch.media) == 1
        both = [*same, *drawn(POLICY, [asked(scene(2))], siblings=4)]
        [batch] = pack([Unit(action, 1.0, 1.0) for action in both], budget=2000)
        assert len(batch.media) == 2 and {one.digest for _, _, one in batch.media} == {scene(1).digest, scene(2).digest}

    def test_it_finds_that_trees_give_what_plain_rows_give(self) -> None:
        assert POLICY.why_plain == ""

    def test_gradients_reach_the_tower_and_do_not_depend_on_rows(self) -> None:
        actions, found = drawn(POLICY, MIXED, siblings=2), []
        for share in (True, False):
            policy = tiny()
            policy._patches.update(POLICY._patches)
            for batch in pack([Unit(action, 1.0, 1.0) for action in actions], budget=600, share=share):
                policy.score(batch).sum().backward()
            found.append(policy.model.model.visual.patch_embed.proj.weight.grad.clone())
        assert found[0].abs().max() > 0
        assert torch.allclose(*found, atol=1e-4 * float(found[0].abs().max()))

    def test_pictures_of_logs_cannot_be_scored(self) -> None:
        [action] = drawn(POLICY, [asked(scene(1))])
        fresh = tiny()
        with pytest.raises(PolicyError, match="show them again"):
            score(fresh, [action])
        with pytest.raises(DataError, match="no pixels"):
            fresh.prompt(asked(Picture(scene(1).size, scene(1).digest)))


class TestFolders:
    def test_a_folder_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        POLICY.save(tmp_path)
        again = open_policy(str(tmp_path))
        assert isinstance(again, VisionPolicy) and again.processor.size == POLICY.processor.size
        one, other = drawn(POLICY, MIXED), drawn(again, MIXED)
        assert [a.tokens for a in one] == [a.tokens for a in other]

    def test_copies_learn_on_their_own(self) -> None:
        twin, frozen = POLICY.twin("twin"), POLICY.frozen("start")
        with torch.no_grad():
            for parameter in twin.model.parameters():
                parameter.add_(0.1)
        [before], [after] = drawn(POLICY, MIXED[:1]), drawn(frozen, MIXED[:1])
        assert before.tokens == after.tokens
        assert not torch.equal(score(POLICY, [before])[0], score(twin, [before])[0])
        assert not any(p.requires_grad for p in frozen.model.parameters())

    def test_other_families_are_refused_by_name(self, tmp_path: Path) -> None:
        POLICY.save(tmp_path)
        file = tmp_path / "config.json"
        file.write_text(file.read_text().replace('"model_type": "qwen2_vl"', '"model_type": "qwen2_5_vl"', 1))
        with pytest.raises(PolicyError, match="qwen2_5_vl"):
            VisionPolicy.load(tmp_path)
        with pytest.raises(PolicyError, match="no model that sees"):
            VisionPolicy.load(tmp_path / "none")


class TestRefused:
    def test_who_reads_alone_is_not_shown_pictures(self) -> None:
        with pytest.raises(PolicyError, match="a model that can see"):
            open_policy("bundled").sample([Request(asked(scene(1)), Distribution(), 0)])

    def test_pictures_without_a_question(self) -> None:
        with pytest.raises(PolicyError, match="asked nothing"):
            POLICY.prompt(asked(scene(1), text=""))

    @pytest.mark.parametrize(
        ("kept", "shown", "said"),
        [
            (10, 1, "has 9 tokens that stand for pictures, and is shown 1 that take 16"),
            (0, 1, "has 0 tokens that stand for pictures, and is shown 1 that take 16"),
            (18, 2, "has 16 tokens that stand for pictures, and is shown 2 that take 32"),
            (None, 0, "has 16 tokens that stand for pictures, and is shown 0 that take 0"),
        ],
        ids=[
            "cut inside a picture",
            "cut before it",
            "more pictures than placeholders",
            "more placeholders than pictures",
        ],
    )
    def test_a_window_whose_pictures_are_not_those_that_it_read(self, kept: int | None, shown: int, said: str) -> None:
        both = [scene(1), scene(2)]
        [action] = drawn(POLICY, [asked(*both[: shown or 1])])
        before = replace(action, prompt=(1,) if kept == 0 else action.prompt[:kept])
        with pytest.raises(PolicyError, match=said):
            POLICY.prompt(asked(*both[:shown]).then(before, "And here?"))

    def test_a_prompt_too_long_for_the_window_is_told(self) -> None:
        [action] = drawn(POLICY, [asked(*[scene(n, 112) for n in range(16)])])
        assert action.stop is Stop.PROMPT_TOO_LONG and not action.tokens

    def test_a_picture_in_another_grid_is_computed_apart(self) -> None:
        ids = (POLICY.image,) * 16
        keys = [merge_key(Action("", ids, (1,), media=(Media(0, 16, "x", grid),))) for grid in ((4, 4), (2, 8))]
        assert common(*keys) == 0

    def test_a_service_is_not_shown_pictures_and_says_so(self) -> None:
        pytest.importorskip("httpx2")
        from memorist import Endpoint
        from memorist.training.launch.served import TokenActor

        async def never(*given: object) -> object:
            raise AssertionError

        actor = TokenActor("viewer", POLICY.tokenizer, never, Distribution(), [])
        for act in (Endpoint("http://127.0.0.1:1", "m").act, actor.act):
            with pytest.raises(PolicyError, match="a model that can see"):
                asyncio.run(act(asked(scene(1))))
            with pytest.raises(PolicyError, match="a model that can see"):
                asyncio.run(act(asked(scene(1)).then(Action("two"), "And now?")))

    def test_more_pictures_than_are_kept_can_be_looked_at_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("memorist.models.vision.KEPT_BYTES", 1)
        policy = tiny()
        for _ in range(2):
            assert len(drawn(policy, [asked(scene(n)) for n in range(5)])) == 5
            assert len(policy._patches) == 5
        drawn(policy, [asked(scene(9))])
        assert len(policy._patches) == 1

    @pytest.mark.parametrize("size", [(1, 1), (5, 300), (300, 5), (56, 56), (590, 3)])
    def test_any_size_is_seen(self, size: tuple[int, int]) -> None:
        picture = read_picture(written(Image.new("RGB", size, (9, 9, 9))))
        try:
            [action] = drawn(POLICY, [asked(picture)])
        except PolicyError as error:
            assert "cannot be shown" in str(error)
            return
        assert action.tokens or action.stop is Stop.PROMPT_TOO_LONG


class TestAdapters:
    def test_a_new_one_sees_what_its_base_sees(self) -> None:
        pytest.importorskip("peft")
        adapted = with_adapter(tiny(), "viewer", rank=4, alpha=8)
        assert adapted.sees
        for one, other in zip(drawn(POLICY, MIXED, siblings=2), drawn(adapted, MIXED, siblings=2), strict=True):
            assert one.tokens == other.tokens and one.logprobs == pytest.approx(other.logprobs, abs=1e-5)

    def test_it_learns_how_pictures_are_seen_and_comes_back_from_its_folder(self, tmp_path: Path) -> None:
        pytest.importorskip("peft")
        tiny().save(tmp_path / "base")
        adapted = with_adapter(VisionPolicy.load(tmp_path / "base"), "viewer", rank=4, alpha=8)
        actions = drawn(adapted, MIXED)
        before = torch.cat(score(adapted, actions))
        optimizer = torch.optim.AdamW(adapted.parameters(), lr=1e-2)
        for _ in range(3):
            for batch in pack([Unit(action, 1.0, 1.0) for action in actions], budget=600):
                (-adapted.score(batch).sum()).backward()
            grown = [p.grad for name, p in adapted._own().items() if "visual" in name and ".lora_B" in name]
            assert grown and all(g is not None and float(g.abs().max()) > 0 for g in grown)
            optimizer.step()
            optimizer.zero_grad()
        after = torch.cat(score(adapted, actions))
        assert float(after.sum()) > float(before.sum()) + 1
        adapted.save(tmp_path / "adapter")
        again = open_policy(str(tmp_path / "adapter"))
        again.see([picture for seen in MIXED for picture in seen.pictures])
        assert torch.allclose(torch.cat(score(again, actions)), after, atol=1e-5)
