"""A listener without a language model: what people say of themselves goes to leaves, all else is left out."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from memorist.agents.personatree import PersonaTree
from memorist.agents.profile_offline import OfflineAnswerer, OfflineListener, of_oneself
from memorist.conversation import Message
from memorist.memory.record import Scope
from memorist.memory.scratch import minilm_bank
from memorist.models.sampler import Greedy

ANNA, AT = Scope("Anna"), datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def models() -> tuple[Greedy, Greedy]:
    embedder = minilm_bank().embedder
    return Greedy(OfflineListener(embedder=embedder)), Greedy(OfflineAnswerer(embedder))


def heard(models: tuple[Greedy, Greedy], *said: str) -> PersonaTree:
    listener, answerer = models
    agent = PersonaTree(bank=minilm_bank(), listener=listener, answerer=answerer, pairs=1, mode="fast")

    async def run() -> None:
        messages = [Message("Anna", text, f"m{i}", AT) for i, text in enumerate(said)]
        async for _ in agent.observe(messages, ANNA):
            pass

    asyncio.run(run())
    return agent


def last(path: str) -> str:
    return path.rpartition(".")[2]


def test_statements_find_their_leaves(models: tuple[Greedy, Greedy]) -> None:
    said = "I live in Porto. I work as a beekeeper, and i have a cat named Mimi."
    leaves = {last(path): text for path, text in heard(models, said).tree(ANNA).leaves().items()}
    assert leaves == {
        "Residence": "I live in Porto",
        "Position": "I work as a beekeeper",
        "Pet_Care": "I have a cat named Mimi",
    }


def test_what_is_new_takes_the_place_of_what_was(models: tuple[Greedy, Greedy]) -> None:
    tree = heard(models, "I live in Porto.", "I've moved from Porto to Leeds.").tree(ANNA)
    assert "Leeds" in str(tree.leaves()) and len(tree.leaves()) == 1
    assert len(tree.versions()) == 2 and "Porto" in str(tree.leaves(as_of=tree.versions()[0]))


@pytest.mark.parametrize(
    "said",
    [
        "My neighbour has a cat called Mango.",
        "She lives in Leeds.",
        "My best friend plays the oboe.",
        "The tram was late once more.",
        "I cleaned the windows this morning.",
        "What is the capital of Peru?",
        "Thanks a lot!",
        "",
        "\x00\ud800",
    ],
)
def test_what_is_not_of_the_person_or_does_not_last_is_left_out(models: tuple[Greedy, Greedy], said: str) -> None:
    assert heard(models, said).tree(ANNA).leaves() == {}


def test_how_ones_own_people_are_called_is_kept() -> None:
    assert of_oneself("My sister is called Imogen") and of_oneself("my partner's name is called Tom")
    assert not of_oneself("My sister works as a welder") and not of_oneself("the weather turned")


def test_questions_are_answered_by_what_is_nearest(models: tuple[Greedy, Greedy]) -> None:
    agent = heard(models, "I live in Porto. I play the oboe. I am allergic to cashews.")
    ask = lambda question: asyncio.run(agent.answer(question, ANNA)).text  # noqa: E731
    assert "oboe" in ask("Which instrument do I play?") and "Porto" in ask("Where is my home?")
    assert asyncio.run(heard(models).answer("Where is my home?", ANNA)).text == ""


def test_what_the_tree_does_not_say_is_answered_by_what_was_said(models: tuple[Greedy, Greedy]) -> None:
    agent = heard(models, "I live in Porto.", "My neighbour has a boat called Argo.")
    assert "Argo" not in str(agent.tree(ANNA).leaves())
    ask = "What is the boat of the neighbour called?"
    assert "Argo" in asyncio.run(agent.answer(ask, ANNA, detail=True)).text
    assert "Argo" not in asyncio.run(agent.answer(ask, ANNA)).text
    assert "Porto" in asyncio.run(agent.answer("Where is my home?", ANNA, detail=True)).text
