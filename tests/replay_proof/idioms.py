"""What people build of asyncio's parts: time limits in time limits, clean-up that waits, workers at a queue."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import ergon
from tests.replay_proof.play import (
    Play,
    ProgramError,
    Rejected,
    describe,
    describe_all,
    offspring,
    outcome,
)
from tests.replay_proof.programs import Node


class IdiomPlay(Play):
    """One run of a program that may have these, too."""

    async def _ask(self, name: str, arg: int) -> str:
        """A call that `gather` needs a task for, and that an exit stack may make."""
        return await self.ask(name, arg)

    async def _timed_child(self, node: Node) -> str | None:
        """A wait for a child within a time limit, and once more when the child has been shielded from that."""
        handle = ergon.invoke(offspring.bind(node["arg"]))
        try:
            async with asyncio.timeout(node["delay"]):
                wait = handle.result()
                return await (asyncio.shield(wait) if node["again"] else wait)
        except TimeoutError:
            self.note(node, "late")
        if node["again"]:
            async with asyncio.timeout(node["again"]):
                return await handle.result()
        return None

    async def _steps(self, node: Node) -> str | None:
        """Steps handed to `gather` as they are, which need no tasks, beside others that do."""
        calls = [self.ask(node["name"], number % 3) for number in range(node["count"])]
        gathered = asyncio.gather(
            *calls, *(self.run(child) for child in node["body"]), return_exceptions=node["collect"]
        )
        if node["cancel"]:
            asyncio.get_running_loop().call_later(node["delay"] or 0.0, gathered.cancel)
        try:
            async with asyncio.timeout(node["delay"]):
                return describe_all(await gathered)
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise
            self.note(node, "only the steps were cancelled")
            return None

    async def _outlasting(self, node: Node) -> str:
        """Work that goes on behind its time limit, and is cancelled some time after."""
        task = self.start(node["body"][0])
        try:
            return str(await asyncio.wait_for(asyncio.shield(task), node["delay"]))
        except TimeoutError:
            self.note(node, "goes on")
        await asyncio.wait([task], timeout=node["delay"])
        task.cancel()
        return outcome(task)

    async def _cleaning(self, node: Node) -> str:
        """A task group whose end by a cancellation is followed by durable clean-up."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.run(child)) for child in node["body"]]
            return describe_all(task.result() for task in tasks)
        except asyncio.CancelledError:
            self.note(node, "cleans up", node["by"])
            await self._clean_up(node)
            self.note(node, "cleaned up")
            raise

    async def _clean_up(self, node: Node) -> None:
        if node["by"] == "step":
            await self._ask("alpha", node["arg"])
        elif node["by"] == "timer":
            await asyncio.sleep(node["delay"])
        elif node["by"] == "signal":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(node["delay"]):
                    self.note(node, "signal", await ergon.wait_signal(node["name"], str))
        else:
            both = asyncio.gather(offspring(1), self._ask("alpha", 1), return_exceptions=True)
            self.note(node, "both", describe_all(await both))

    async def _undoing(self, node: Node) -> Any:
        """A step that an exit stack calls, however the work ends."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._ask, "alpha", node["arg"])
            return await self.run(node["body"][0])

    async def _limits(self, node: Node) -> Any:
        """Three time limits around one another."""
        try:
            async with asyncio.timeout(node["delay"]):
                try:
                    async with asyncio.timeout(node["again"]):
                        return await asyncio.wait_for(self.run(node["body"][0]), node["limit"])
                except TimeoutError:
                    self.note(node, "an inner one")
                    await asyncio.sleep(1.0)
        except TimeoutError:
            self.note(node, "the outer one")

    async def _cancelled_twice(self, node: Node) -> str:
        task = self.start(node["body"][0])
        loop = asyncio.get_running_loop()
        cancels = [loop.call_later(node[when], task.cancel, when) for when in ("delay", "again")]
        await asyncio.wait([task])
        for cancel in cancels:
            cancel.cancel()
        return outcome(task)

    async def _barrier(self, node: Node) -> str:
        """Parts that wait for one another; one that is cancelled there lets the others go."""
        barrier = asyncio.Barrier(len(node["body"]))

        async def part(child: Node) -> int:
            try:
                await self.run(child)
            finally:
                try:
                    self.note(node, "crossed", await barrier.wait())
                except asyncio.BrokenBarrierError:
                    self.note(node, "broken")
                except asyncio.CancelledError:
                    await barrier.abort()
                    raise
            return int(child["id"])

        parts = (part(child) for child in node["body"])
        return describe_all(await asyncio.gather(*parts, return_exceptions=True))

    async def _workers(self, node: Node) -> str:
        """Two tasks that take work from a queue until all is done."""
        queue: asyncio.Queue[Node] = asyncio.Queue()
        for child in node["body"]:
            queue.put_nowait(child)

        async def work() -> None:
            while True:
                child = await queue.get()
                try:
                    await self.run(child)
                except (ProgramError, Rejected, TimeoutError, ExceptionGroup) as error:
                    self.note(node, "went on after", describe(error))
                finally:
                    queue.task_done()

        workers = [asyncio.create_task(work()) for _ in range(2)]
        try:
            await queue.join()
        finally:
            for worker in workers:
                worker.cancel()
        return describe_all(await asyncio.gather(*workers, return_exceptions=True))
