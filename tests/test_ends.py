"""What is written ends behind the first of some texts, however tokens cut them, whoever writes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memorist.decision import Action, Author, Distribution, Observation, Span, Stop
from memorist.models.causal import CausalPolicy
from memorist.models.ends import Ends, StopDetector, cut
from memorist.models.registry import open_policy
from memorist.models.rows import Unit, pack
from memorist.models.sampler import Request
from memorist.training.launch.served import TokenActor, windows
from memorist.training.reward_model import Judged, RewardModel
from test_endpoint import completion, serving
from test_trainer import taught

POLICY = open_policy("bundled")
ENDS = ("</action_input>", "</a>")
SAID = "go</a> and on"
MESSAGES = ("</action_input>", "</stop_analysis>")


def decoded(tokens: list[int]) -> str:
    return str(POLICY.tokenizer.decode(tokens, skip_special_tokens=True))


@pytest.fixture(scope="module")
def talker(make_tiny: Callable[..., CausalPolicy]) -> CausalPolicy:
    """Always says the same."""
    return taught(make_tiny(2, words=("go", "and", "on")), ["x:"], (SAID,), steps=60)


def asked(ends: tuple[str, ...] = ENDS, most: int = 40) -> Request:
    return Request(Observation("x:", max_tokens=most, ends=ends), Distribution(temperature=0.0), 0)


class TestTexts:
    @given(st.text("ab<>/_ é\n", max_size=20), st.sampled_from(ENDS), st.text("ab<>/ é", max_size=20))
    def test_an_action_ends_with_the_token_that_completes_the_first_end(
        self, before: str, end: str, after: str
    ) -> None:
        whole = POLICY.encode(Observation("x"), f"{before}{end}{after}")
        found = Ends(POLICY.tokenizer.decode).finished(whole, ENDS, POLICY.end)
        assert found.tokens[-1] == POLICY.end and found.stop is Stop.END
        count = len(found.tokens) - 1
        assert found.spans == (Span(0, count), Span(count, count + 1, Author.ENVIRONMENT))
        assert found.tokens[:-1] == whole.tokens[:count] and len(found.logprobs) == count + 1
        first = len(cut(whole.text, ENDS))
        assert len(decoded(list(found.tokens[:-1]))) >= first > len(decoded(list(found.tokens[: count - 1])))

    def test_what_has_no_end_is_left_as_it_is(self) -> None:
        whole = POLICY.encode(Observation("x"), "nothing ends < / a >")
        assert Ends(POLICY.tokenizer.decode).finished(whole, ENDS, POLICY.end) is whole
        assert cut("nothing", ENDS) == "nothing" and cut("a</a></action_input>", ENDS) == "a</a>"


class TestPolicies:
    def test_one_stops_where_it_would_have_gone_on(self, talker: CausalPolicy) -> None:
        [on, stopped] = talker.sample([asked(()), asked()])
        assert (on.text, stopped.text, stopped.stop) == (SAID, "go</a>", Stop.END)
        assert len(stopped.tokens) < len(on.tokens)
        assert stopped.tokens[:-1] == on.tokens[: len(stopped.tokens) - 1] and stopped.tokens[-1] == talker.end

    def test_no_loss_is_on_the_end_that_it_did_not_write(self, talker: CausalPolicy) -> None:
        [stopped] = talker.sample([asked()])
        [batch] = pack([Unit(stopped, 1.0, 1.0)], budget=100)
        assert batch.place.tolist() == list(range(len(stopped.tokens) - 1))
        assert torch.allclose(talker.score(batch), torch.tensor(stopped.logprobs[:-1]), atol=1e-4)

    def test_a_window_goes_on_behind_it(self, talker: CausalPolicy) -> None:
        request = asked()
        [stopped] = talker.sample([request])
        later = request.observation.then(stopped, "next")
        assert later.ends == ENDS
        ids = talker.prompt_ids(later)
        assert ids[: len(stopped.prompt) + len(stopped.tokens)] == (*stopped.prompt, *stopped.tokens)

    def test_a_limit_before_the_end_is_a_limit(self, talker: CausalPolicy) -> None:
        [whole] = talker.sample([asked()])
        [short] = talker.sample([asked(most=len(whole.tokens) - 2)])
        [just] = talker.sample([asked(most=len(whole.tokens) - 1)])
        assert short.stop is Stop.LENGTH and not short.spans and just == whole

    def test_a_reward_model_reads_all_tokens_alike(self, talker: CausalPolicy) -> None:
        [stopped] = talker.sample([asked()])
        model = RewardModel(talker)
        one, other = model.scores([Judged((stopped,)), Judged((replace(stopped, spans=()),))])
        assert one == other


class TestServed:
    def test_an_endpoints_reply_is_cut(self) -> None:
        from memorist import Endpoint

        with serving(lambda n, body: completion(SAID)) as (url, _):
            model = Endpoint(url, "m")
            assert model.sample([asked()])[0].text == asyncio.run(model.act(asked().observation)).text == "go</a>"
            assert model.sample([asked(())])[0].text == SAID

    def test_a_server_of_tokens_may_write_on_and_nobody_learns_from_it(self, talker: CausalPolicy) -> None:
        [on] = talker.sample([asked(())])

        async def generate(prompt: object, most: int) -> SimpleNamespace:
            return SimpleNamespace(token_ids=list(on.tokens), log_probs=list(on.logprobs))

        log: list = []
        actor = TokenActor("arm", talker.tokenizer, generate, Distribution(), log)
        action: Action = asyncio.run(actor.act(asked().observation))
        assert action.text == "go</a>"
        [window] = windows(log, "arm")
        assert window.response == action.tokens and window.mask == (*(1,) * (len(action.tokens) - 1), 0)


class TestStops:
    @given(
        st.text("<>/_abceinopstuwx", max_size=30),
        st.sampled_from(MESSAGES),
        st.text(max_size=10),
        st.lists(st.integers(1, 7)),
    )
    def test_an_end_is_found_wherever_pieces_are_cut(self, before: str, end: str, after: str, sizes: list[int]) -> None:
        text, detector, at = before + end + after, StopDetector(MESSAGES), 0
        expected = min(text.find(one) + len(one) for one in MESSAGES if one in text)
        for size in [*sizes, len(text)]:
            found = detector.feed(text[at : at + size])
            at += size
            if at >= len(text):
                break
        assert found == expected

    def test_none_is_found_where_none_is(self) -> None:
        detector = StopDetector(MESSAGES)
        assert [detector.feed(piece) for piece in ("<step></st", "ep></action_inpu", "t")] == [None] * 3
        assert detector.feed(">") is not None
