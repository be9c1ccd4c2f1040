"""The memory behind other frameworks' own interfaces, with the real packages (`make test-integrations`)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memorist import Memory, Scope
from memorist.errors import ArgumentError, RefusedError

ANNA = Scope("anna")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    with Memory(tmp_path / "m.db", embedder="minilm") as opened:
        yield opened


class TestLangGraph:
    @pytest.fixture
    def store(self, memory: Memory) -> Any:
        from memorist.integrations.langgraph import MemoristStore

        return MemoristStore(memory)

    def test_items_from_being_put_to_being_deleted(self, store: Any, memory: Memory) -> None:
        home = ("anna", "facts")
        store.put(home, "home", {"text": "Anna lives in Porto.", "since": 2020})
        store.put(home, "pet", {"text": "Anna has two cats.", "since": 2023})
        store.put(("ben", "facts"), "home", {"text": "Ben lives in Rome."})
        item = store.get(home, "home")
        assert item.value == {"text": "Anna lives in Porto.", "since": 2020} and item.namespace == home
        assert [hit.key for hit in store.search(("anna",), query="Where does Anna live?", limit=1)] == ["home"]
        assert [hit.key for hit in store.search(home, filter={"since": {"$gt": 2021}})] == ["pet"]
        assert [hit.key for hit in store.search(home, filter={"since": 2020})] == ["home"]
        assert store.search(("anna", "other")) == []
        store.put(home, "home", {"text": "Anna lives in Leeds."})
        assert store.get(home, "home").value == {"text": "Anna lives in Leeds."}
        held = memory.list(Scope("anna", "langgraph"))
        assert [change.kind.value for change in memory.history(held[0].id, Scope("anna"))] == ["ADD", "UPDATE"]
        store.delete(home, "home")
        assert store.get(home, "home") is None
        assert store.list_namespaces() == [home, ("ben", "facts")]
        assert store.list_namespaces(prefix=("ben",)) == [("ben", "facts")]
        assert store.list_namespaces(max_depth=1) == [("anna",), ("ben",)]
        memory.erase(ANNA)
        assert store.search(("anna",)) == [] and store.get(("ben", "facts"), "home") is not None

    def test_pages_equal_keys_elsewhere_and_odd_values(self, store: Any) -> None:
        for number in range(7):
            store.put(("anna", str(number % 2)), f"k{number}", {"n": number, "deep": {"a": [1, None, True]}})
        store.put(("anna", "1", "below"), "k1", {"n": 99})
        assert [i.value["n"] for i in store.search(("anna", "1"), limit=2, offset=1)] == [3, 5]
        assert (
            store.get(("anna", "1"), "k1").value["n"] == 1 and store.get(("anna", "1", "below"), "k1").value["n"] == 99
        )
        assert len(store.search(("anna", "1"), query="3", limit=10)) == 4
        store.memory.add("no item", Scope("anna", "langgraph"))
        assert ("anna", "0") in store.list_namespaces()
        assert len(store.search(("anna",), filter={"deep": {"a": [1, None]}, "n": {"$lt": 2}})) == 2
        with pytest.raises(ArgumentError, match="whose memory it is"):
            store.search(())
        with pytest.raises(ArgumentError, match="operator"):
            store.search(("anna",), filter={"n": {"$near": 1}})

    def test_beside_the_event_loop_and_in_a_graph(self, store: Any) -> None:
        from langgraph.config import get_store
        from langgraph.graph import END, START, StateGraph
        from typing_extensions import TypedDict

        class State(TypedDict):
            said: str

        def remember(state: State) -> State:
            store = get_store()
            store.put(("anna",), "last", {"text": state["said"]})
            return {"said": store.search(("anna",), query="dog")[0].value["text"]}

        graph = StateGraph(State)
        graph.add_node("remember", remember)
        graph.add_edge(START, "remember")
        graph.add_edge("remember", END)
        assert graph.compile(store=store).invoke({"said": "Anna has a dog."}) == {"said": "Anna has a dog."}

        async def main() -> Any:
            await store.aput(("anna",), "cat", {"text": "and a cat"})
            return await store.aget(("anna",), "cat")

        assert asyncio.run(main()).value == {"text": "and a cat"}

    def test_what_has_a_time_to_live_goes(self, store: Any, memory: Memory) -> None:
        store.put(("anna",), "short", {"text": "Anna is in town."}, ttl=1e-6)
        store.put(("anna",), "long", {"text": "Anna is in town."}, ttl=10)
        assert store.get(("anna",), "short") is None and store.get(("anna",), "long") is not None
        store.put(("anna",), "short", {"text": "Anna is back."})
        assert store.get(("anna",), "short").value == {"text": "Anna is back."}, "what is hidden makes room"
        store.put(("anna",), "long", {"text": "Anna stays."})
        assert memory.list(ANNA)[-1].expires is None


class TestOpenAIAgents:
    def test_a_conversation(self, memory: Memory) -> None:
        from agents.memory.session import Session

        from memorist.integrations.openai_agents import MemoristSession

        with pytest.raises(ArgumentError, match="session_id is empty"):
            MemoristSession("", memory, user="anna")

        async def main() -> None:
            session = MemoristSession("s1", memory, user="anna")
            assert isinstance(session, Session)
            large = {"role": "user", "content": "x" * 2_000_000}
            await session.add_items([large])
            assert await session.pop_item() == large
            items = [
                {"role": "user", "content": "I live in Porto."},
                {"role": "assistant", "content": [{"type": "output_text", "text": "Noted."}]},
                {"type": "function_call", "name": "look", "arguments": "{}", "call_id": "c"},
                {"role": "user", "content": "I live in Porto."},
            ]
            await session.add_items(items[:2])
            await session.add_items(items[2:])
            assert await session.get_items() == items, "equal ones too"
            assert await session.get_items(2) == items[-2:] and await session.get_items(99) == items
            assert await session.get_items(0) == []
            assert await session.pop_item() == items[-1]
            assert await session.get_items() == items[:-1]
            assert await MemoristSession("s2", memory, user="anna").get_items() == []
            assert await MemoristSession("s1", memory, user="ben").get_items() == []
            await session.clear_session()
            assert await session.get_items() == [] and await session.pop_item() is None
            learnt = memory.list(ANNA)
            assert len(learnt) == 1 and "Porto" in learnt[0].text, "once, and it stays"

        asyncio.run(main())

    def test_in_a_run_of_the_sdk(self, memory: Memory) -> None:
        from agents import Agent, Runner, set_tracing_disabled
        from agents.items import ModelResponse
        from agents.models.interface import Model
        from agents.usage import Usage
        from openai.types.responses import ResponseOutputMessage, ResponseOutputText

        from memorist.integrations.openai_agents import MemoristSession

        set_tracing_disabled(True)
        shown: list[Any] = []

        class Said(Model):
            async def get_response(
                self, system_instructions: Any, input: Any, *args: Any, **more: Any
            ) -> ModelResponse:
                shown.append(input)
                text = ResponseOutputText(annotations=[], text="Noted.", type="output_text")
                message = ResponseOutputMessage(
                    id="m", content=[text], role="assistant", status="completed", type="message"
                )
                return ModelResponse(output=[message], usage=Usage(), response_id=None)

            def stream_response(self, *args: Any, **more: Any) -> Any:
                raise NotImplementedError

        async def main() -> None:
            agent = Agent(name="a", model=Said())
            session = MemoristSession("s1", memory, user="anna")
            await Runner.run(agent, "I live in Porto.", session=session)
            await Runner.run(agent, "Where do I live?", session=session)

        asyncio.run(main())
        assert [item.get("content") for item in shown[1] if item.get("role") == "user"] == [
            "I live in Porto.", "Where do I live?"]  # fmt: skip


class TestLlamaIndex:
    def test_a_block_recalls_and_reads(self, memory: Memory) -> None:
        from llama_index.core.base.llms.types import ChatMessage
        from llama_index.core.memory import Memory as ChatMemory

        from memorist.integrations.llama_index import MemoristBlock

        memory.add("Anna lives in Porto.", ANNA)

        async def main() -> None:
            block = MemoristBlock(memory, "anna", max_tokens=50)
            chat = ChatMemory.from_defaults(
                session_id="s1",
                memory_blocks=[block],
                token_limit=60,
                chat_history_token_ratio=0.5,
                token_flush_size=10,
            )
            await chat.aput(ChatMessage(role="user", content="Where do I live?"))
            told = await chat.aget()
            assert "Anna lives in Porto." in str(told[0].content)
            for number in range(12):
                await chat.aput(ChatMessage(role="user", content=f"My aunt number {number} has a garden in Leeds."))
            assert any("aunt number 0" in record.text for record in memory.list(ANNA)), "what left the window was read"
            assert await block.aget([]) == ""
            text = await block.aget([ChatMessage(role="user", content="garden")])
            shorter = await block.atruncate(text, 5)
            assert shorter is not None and text.startswith(shorter) and len(shorter) < len(text)
            assert await block.atruncate(text, 10_000) is None

        asyncio.run(main())


class TestCrewAI:
    @pytest.fixture
    def storage(self, memory: Memory) -> Any:
        from memorist.integrations.crewai import MemoristStorage

        return MemoristStorage(memory, user="anna")

    def record(self, text: str, **how: Any) -> Any:
        from crewai.memory.types import MemoryRecord

        return MemoryRecord(content=text, **how)

    def test_it_is_a_backend(self, storage: Any) -> None:
        from crewai.memory.storage.backend import StorageBackend

        assert isinstance(storage, StorageBackend)

    def test_records_from_being_saved_to_being_deleted(self, storage: Any, memory: Memory) -> None:
        porto = self.record("Anna lives in Porto.", scope="/team/people", categories=["home"], metadata={"n": 1})
        cats = self.record("Anna has two cats.", scope="/team/pets", categories=["pet"], metadata={"n": 2})
        storage.save([porto, cats])
        (vector,) = storage.embed(["Where does Anna live?"])
        (found, score), _ = storage.search(vector)
        assert (found.id, found.content, found.categories, found.metadata) == (
            porto.id,
            porto.content,
            ["home"],
            {"n": 1},
        )
        assert 0 < score <= 1
        assert [r.id for r, _ in storage.search(vector, scope_prefix="/team/pets")] == [cats.id]
        assert [r.id for r, _ in storage.search(vector, categories=["pet", "x"])] == [cats.id]
        assert [r.id for r, _ in storage.search(vector, metadata_filter={"n": 2})] == [cats.id]
        assert storage.search(vector, min_score=2.0) == [] and len(storage.search(vector, limit=1)) == 1
        with pytest.raises(ArgumentError, match=r"embedder=storage\.embed"):
            storage.search([0.0, 1.0])
        assert storage.count() == 2 and storage.count("/team/pets") == 1
        assert storage.list_scopes() == ["/team"] and storage.list_scopes("/team") == ["/team/people", "/team/pets"]
        assert storage.list_categories() == {"home": 1, "pet": 1}
        info = storage.get_scope_info("/team")
        assert (info.record_count, info.child_scopes) == (2, ["/team/people", "/team/pets"])
        storage.update(porto.model_copy(update={"content": "Anna lives in Leeds."}))
        assert storage.get_record(porto.id).content == "Anna lives in Leeds."
        assert [r.id for r in storage.list_records()] == [cats.id, porto.id]
        bad = self.record("", scope="/")
        with pytest.raises(RefusedError):
            storage.save([cats.model_copy(update={"content": "changed"}), bad])
        assert storage.get_record(cats.id).content == cats.content, "all or none"
        storage.save([cats, cats.model_copy(update={"content": "Anna has three cats."})])
        assert storage.get_record(cats.id).content == "Anna has three cats."
        assert storage.delete(record_ids=[cats.id, "none"]) == 1 and storage.get_record(cats.id) is None
        storage.reset()
        assert storage.count() == 0 and memory.list(ANNA) == []

    def test_behind_crewai_s_own_memory(self, storage: Any) -> None:
        from crewai import Memory as CrewMemory

        crew = CrewMemory(storage=storage, embedder=storage.embed, llm="none")
        crew.remember("Anna lives in Porto.", scope="/people", categories=["home"], metadata={}, importance=0.5)
        crew.drain_writes()
        assert [match.record.content for match in crew.recall("Where is home?", depth="shallow")] == [
            "Anna lives in Porto."
        ]
        assert crew.forget(scope="/people") == 1
        crew.close()
