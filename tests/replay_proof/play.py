"""Run a program inside a flow and write down everything it observes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextvars import ContextVar
from typing import Any, Final

from tests.replay_proof import early  # isort: skip  # before Ergon: what such a module holds must work too

import ergon
from ergon.flows.dag import DagBuilder
from tests.replay_proof.programs import CHANNELS, Node


class ProgramError(Exception):
    """What a program raises."""


class Rejected(Exception):
    """What a failing step raises."""


@ergon.step
async def alpha(arg: int) -> str:
    raise NotImplementedError  # the host answers


@ergon.step
async def beta(arg: int) -> str:
    raise NotImplementedError


@ergon.step(name="gamma ray")
def gamma(arg: int) -> str:
    raise NotImplementedError


@ergon.flow
async def offspring(arg: int) -> str:
    raise NotImplementedError


STEPS: Final[dict[str, Callable[[int], Coroutine[Any, Any, str]]]] = {
    "alpha": alpha,
    "beta": beta,
    "gamma": gamma,
}
RETURN_WHEN: Final = {
    name: getattr(asyncio, name) for name in ("FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED")
}
setting: ContextVar[str] = ContextVar("setting", default="unset")


class Play:
    """One run of a program. `trace` is all that it has seen, in order."""

    def __init__(self, program: Node) -> None:
        self.program = program
        self.trace: list[tuple[int, str, str]] = []
        self.ran: Counter[str] = Counter()
        self.cancelled: Counter[str] = Counter()
        """Kinds of nodes that a cancellation went through."""
        self.asked: Counter[str] = Counter()
        """How often each step was called with each argument."""
        self.surprises: list[str] = []
        """Errors that no program means to raise."""

    async def main(self) -> Any:
        """The flow's code."""
        self.queues: dict[str, asyncio.Queue[str]] = {name: asyncio.Queue(1) for name in CHANNELS}
        self.locks = {name: asyncio.Lock() for name in CHANNELS}
        self.semaphores = {name: asyncio.Semaphore(2) for name in CHANNELS}
        self.event = asyncio.Event()
        self.condition = asyncio.Condition()
        self.slots: dict[int, asyncio.Task[Any]] = {}
        result = await self.run(self.program)
        if self.program["fails"]:
            raise ProgramError("at the end")
        return result

    def note(self, node: Node, mark: str, value: object = "") -> None:
        self.trace.append((node["id"], mark, str(value)[:200]))

    async def run(self, node: Node) -> Any:
        """Run a node; its start, its value and its error all go into the trace."""
        kind: str = node["kind"]
        self.ran[kind] += 1
        self.note(node, kind)
        try:
            value = await getattr(self, f"_{kind}")(node)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                self.cancelled[kind] += 1
            elif not isinstance(error, ProgramError | Rejected | TimeoutError | ExceptionGroup):
                self.surprises.append(f"{kind} {node['id']}: {error!r}")
            self.note(node, "!", describe(error))
            raise
        self.note(node, "=", value)
        return value

    def start(self, node: Node) -> asyncio.Task[Any]:
        return asyncio.create_task(self.run(node), name=f"node-{node['id']}")

    # -- leaves ----------------------------------------------------------------------------------------

    def ask(self, name: str, arg: int) -> Coroutine[Any, Any, str]:
        """Call a step, and count that."""
        self.asked[f"{name}/{arg}"] += 1
        return STEPS[name](arg)

    async def _step(self, node: Node) -> str:
        answer = await self.ask(node["name"], node["arg"])
        name, arg, _ = answer.split("/", 2)
        assert (name, int(arg)) == (node["name"], node["arg"]), f"{node} was given {answer}"
        return answer

    async def _sleep(self, node: Node) -> None:
        await asyncio.sleep(node["delay"])

    async def _named_timer(self, node: Node) -> None:
        await ergon.schedule_timer_named(node["delay"], f"timer-{node['id']}")

    async def _signal(self, node: Node) -> str:
        return await ergon.wait_signal(node["name"], str)

    async def _child(self, node: Node) -> str:
        return await offspring(node["arg"])

    async def _started_child(self, node: Node) -> str:
        handle = ergon.invoke(offspring.bind(node["arg"]))
        await asyncio.sleep(0)
        answer: str = await handle.result()
        return f"{handle.flow_id} {answer}"

    async def _values(self, node: Node) -> str:
        return (
            f"{ergon.now().isoformat()} {ergon.random()} {ergon.uuid4()} {asyncio.get_running_loop().time()}"
        )

    async def _patched(self, node: Node) -> bool:
        return ergon.patched(node["name"])

    async def _pause(self, node: Node) -> None:
        await asyncio.sleep(0)

    async def _put(self, node: Node) -> None:
        await self.queues[node["name"]].put(f"from {node['id']}")

    async def _get(self, node: Node) -> str:
        return await self.queues[node["name"]].get()

    async def _set_event(self, node: Node) -> None:
        if node["clear"]:
            self.event.clear()
        else:
            self.event.set()

    async def _wait_event(self, node: Node) -> None:
        await self.event.wait()

    async def _wait_condition(self, node: Node) -> None:
        async with self.condition:
            await self.condition.wait()

    async def _notify(self, node: Node) -> None:
        async with self.condition:
            self.condition.notify(node["count"])

    async def _callback(self, node: Node) -> None:
        asyncio.get_running_loop().call_soon(self.note, node, "called")

    async def _later(self, node: Node) -> None:
        handle = asyncio.get_running_loop().call_later(node["delay"], self.note, node, "called later")
        self.note(node, "due", handle.when())

    async def _raise(self, node: Node) -> None:
        raise ProgramError(f"node {node['id']}")

    async def _walk_tasks(self, node: Node) -> str:
        return names_of(asyncio.all_tasks())

    async def _dag(self, node: Node) -> str:
        build = DagBuilder()
        first = build.add(self.ask, "alpha", 0, node_name="alpha")
        second = build.add(self.ask, "beta", 1, node_name="beta")
        build.add(self.ask, "alpha", 0, node_name="alpha-2", after=(first,))
        build.add(self.ask, "gamma", 2, node_name="gamma ray", after=(first, second))
        return str(await build.run())

    async def _cancel(self, node: Node) -> bool:
        task = self.slots.get(node["slot"])
        return task is not None and task.cancel(f"by {node['id']}")

    async def _join(self, node: Node) -> str:
        task = self.slots.get(node["slot"])
        if task is None or task is asyncio.current_task():
            return "nobody"
        await asyncio.wait([task])  # two tasks that await each other directly could not be cancelled
        return outcome(task)

    # -- branches --------------------------------------------------------------------------------------

    async def _seq(self, node: Node) -> None:
        for child in node["body"]:
            try:
                await self.run(child)
            except (ProgramError, Rejected, TimeoutError, ExceptionGroup) as error:
                self.note(node, "went on after", describe(error))

    async def _gather(self, node: Node) -> str:
        coros = (self.run(child) for child in node["body"])
        return describe_all(await asyncio.gather(*coros, return_exceptions=node["collect"]))

    async def _group(self, node: Node) -> str:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.run(child), name=f"node-{child['id']}") for child in node["body"]]
        return describe_all(task.result() for task in tasks)

    async def _wait(self, node: Node) -> str:
        tasks: list[asyncio.Future[Any]] = [self.start(child) for child in node["body"]]
        if node["gathered"]:
            tasks = [asyncio.gather(task, return_exceptions=True) for task in tasks]
        given = set(tasks) if node["as_set"] else tasks
        done, pending = await asyncio.wait(
            given, timeout=node["delay"], return_when=RETURN_WHEN[node["return_when"]]
        )
        places = {task: place for place, task in enumerate(tasks)}
        self.note(node, "done", [(places[task], outcome(task)) for task in done])
        self.note(node, "pending", [places[task] for task in pending])
        if node["then"] == "cancel":
            for task in pending:
                task.cancel()
        if node["then"] != "leave" and pending:
            await asyncio.wait(pending)
        return describe_all(outcome(task) for task in tasks)

    async def _as_completed(self, node: Node) -> str:
        source, body = node["source"], node["body"]
        walk = early.as_completed if source.startswith("early") else asyncio.as_completed
        awaitables: Iterable[Any] = (self.run(child) for child in body)
        if source == "tasks":
            awaitables = {self.start(child) for child in body}
        elif source == "twice":
            awaitables = [*(coros := list(awaitables)), coros[0]]
        elif source.endswith("list"):
            awaitables = list(awaitables)
        seen = []
        for following in walk(awaitables, timeout=node["delay"]):
            try:
                seen.append(str(await following))
            except (ProgramError, Rejected, ExceptionGroup) as error:
                seen.append(describe(error))
            self.note(node, "next", seen[-1])
        return describe_all(seen)

    async def _wait_for(self, node: Node) -> Any:
        return await asyncio.wait_for(self.run(node["body"][0]), node["delay"])

    async def _timeout(self, node: Node) -> Any:
        async with asyncio.timeout(node["delay"]) as limit:
            if node["again"] is not None:
                await asyncio.sleep(0)
                limit.reschedule(asyncio.get_running_loop().time() + node["again"])
            return await self.run(node["body"][0])

    async def _shield(self, node: Node) -> Any:
        return await asyncio.shield(self.run(node["body"][0]))

    async def _race(self, node: Node) -> str:
        tasks = {self.start(child) for child in node["body"]}
        try:
            done, losers = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        self.note(node, "won", names_of(done))
        if losers:
            await asyncio.wait(losers)
        return describe_all(outcome(task) for task in done)

    async def _spawn(self, node: Node) -> None:
        task = self.start(node["body"][0])
        task.add_done_callback(lambda task: self.note(node, "ended", outcome(task)))
        self.slots[node["slot"]] = task

    async def _lock(self, node: Node) -> Any:
        async with self.locks[node["name"]]:
            self.note(node, "locked")
            return await self.run(node["body"][0])

    async def _semaphore(self, node: Node) -> Any:
        async with self.semaphores[node["name"]]:
            self.note(node, "entered")
            return await self.run(node["body"][0])

    async def _catch(self, node: Node) -> Any:
        try:
            return await self.run(node["body"][0])
        except Exception as error:
            self.note(node, "caught", describe(error))
            return await self.run(node["instead"])

    async def _finally(self, node: Node) -> Any:
        try:
            return await self.run(node["body"][0])
        finally:
            await self.run(node["cleanup"])

    async def _stubborn(self, node: Node) -> Any:
        try:
            return await self.run(node["body"][0])
        except asyncio.CancelledError:
            self.note(node, "refused to be cancelled")
            return await self.run(node["cleanup"])

    async def _generator(self, node: Node) -> str:
        async def values() -> AsyncIterator[str]:
            try:
                for child in node["body"]:
                    yield str(await self.run(child))
            finally:
                self.note(node, "generator closes")
                await asyncio.sleep(1.0)
                self.note(node, "generator closed")

        seen: list[str] = []
        async for value in values():
            seen.append(value)
            if len(seen) >= node["stop_after"]:
                break  # left unfinished: it is closed in a task of its own, live and on replay alike
        return describe_all(seen)

    async def _context(self, node: Node) -> str:
        setting.set(f"by {node['id']}")
        value = await self.run(node["body"][0])
        return f"{setting.get()}: {value}"


def outcome(task: asyncio.Future[Any]) -> str:
    """How a task ended, or that it has not."""
    if not task.done():
        return "still running"
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    return describe(error) if error is not None else f"= {task.result()}"


def describe(error: BaseException) -> str:
    """An error without what may differ by address or version."""
    if isinstance(error, BaseExceptionGroup):
        return f"{type(error).__name__}{[describe(inner) for inner in error.exceptions]}"
    return f"{type(error).__name__}({error})"


def describe_all(values: Iterable[Any]) -> str:
    return ", ".join(describe(value) if isinstance(value, BaseException) else str(value) for value in values)


def names_of(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """The names of tasks in the order a set of them is walked."""
    return ", ".join(task.get_name() for task in tasks)
