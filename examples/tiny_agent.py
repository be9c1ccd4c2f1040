"""A whole new agent in one file: one note per speaker, rewritten after each message, and answers from the notes."""

import asyncio
from datetime import datetime

from memorist.agents.components.answers import Answer
from memorist.agents.memory_r1 import Outcome
from memorist.conversation import Message
from memorist.decision import Action, Distribution, Observation
from memorist.memory.bank import MemoryBank
from memorist.memory.record import Operation, Scope
from memorist.memory.scratch import ScratchBank
from memorist.models.sampler import Actor
from memorist.models.scripted import ScriptedSampler
from memorist.tasks.dialogue import DialogueTask
from memorist.tasks.locomo import Question
from memorist.training.rollout import Seat, play


class OneNote:
    """Knows a bank and a model by its role, and not whether it is being trained."""

    def __init__(self, *, bank: MemoryBank, writer: Actor) -> None:
        self.bank, self.writer = bank, writer

    async def observe(self, message: Message) -> None:
        scope = Scope(message.speaker)
        old = self.bank.list(scope)
        seen = f"Note: {old[0].text if old else ''}\nNew: {message.text}"
        reply = await self.writer.act(Observation(seen))
        operation = Operation("UPDATE", reply.text, old[0].id) if old else Operation("ADD", reply.text)
        self.bank.apply([operation], scope, at=message.time or datetime.min, source=[message.id])

    async def answer(self, question: str, speakers: tuple[str, ...]) -> Answer:
        notes = [note.text for speaker in speakers for note in self.bank.list(Scope(speaker))]
        reply = await self.writer.act(Observation("\n".join([*notes, f"Question: {question}"])))
        return Answer(reply.text)

    async def run(self, task: DialogueTask) -> Outcome:
        for message in task.messages:
            await self.observe(message)
        return Outcome(answers=tuple([await self.answer(q.text, task.speakers) for q in task.questions]))


# Below: a model that does as it is told, and the agent in use and in rollouts.
def script(seen: Observation) -> str:
    if "Question:" in seen.prompt:
        return "Oslo" if "Oslo" in seen.prompt else "unknown"
    return seen.prompt.replace("Note: ", "").replace("\nNew:", "").strip()


class Scripted:
    async def act(self, observation: Observation) -> Action:
        return Action(script(observation))


async def use() -> None:
    agent = OneNote(bank=ScratchBank(), writer=Scripted())
    await agent.observe(Message("Anna", "I live in Oslo.", "D1:1"))
    print("answer:", (await agent.answer("Where does Anna live?", ("Anna",))).text)


asyncio.run(use())
talk = (Message("Anna", "I like tea.", "D1:1"), Message("Anna", "I live in Oslo.", "D1:2"))
task = DialogueTask("talk", ("Anna",), talk, (Question("Where does Anna live?", "Oslo", 4, ("D1:2",)),))
for group in play(OneNote, [task], {"writer": Seat(ScriptedSampler(script), Distribution())}, siblings=2):
    for run in group:
        note = run.bank.list(Scope("Anna"))[0].text
        print(f"rollout: {len(run.trajectory.decisions)} decisions, reward {run.reward:g}, note {note!r}")
