"""A message may reach a flow in memory before the flow itself has been revived; it must wait for it.

Found by the kill loop: under load a worker fetched a child's outcome in the moment between claiming the parent and
replaying it. Nobody seemed to wait for the child, so its outcome was thrown away, and the parent waited for ever.
"""

from __future__ import annotations

import asyncio
from functools import partial

from ergon import Executor, InMemoryExecutionLog, flow, invoke
from ergon.core.commit import ClaimRequest, Settled
from ergon.core.status import TaskStatus
from ergon.executor.host import Host
from ergon.executor.incarnation import Incarnation
from ergon.executor.run import FlowRun


@flow
async def early_child() -> int:
    return 7


@flow
async def early_parent() -> int:
    return int(await invoke(early_child.bind(), id="child").result())


def _note_end(ended: asyncio.Future[Settled | None], _run: FlowRun, how: Settled | None) -> None:
    ended.set_result(how)


async def test_a_childs_outcome_that_comes_before_its_parent_is_revived_is_not_lost() -> None:
    async with InMemoryExecutionLog() as log:
        await Executor(early_parent.bind(), log, "parent").run()
        async with Incarnation(log, "w", ("early_child", "early_parent"), 30.0) as incarnation:
            host = Host(log, may_start=incarnation.may_start)
            for id, found in (("child", early_child), ("parent", early_parent)):
                request = ClaimRequest(worker=incarnation.id, names=(found.name,), limit=1, flow_id=id)
                (claimed,) = await log.claim(request)
                ended: asyncio.Future[Settled | None] = host.loop.create_future()
                run = FlowRun(
                    claimed._replace(inbox=[], inbox_seen=0), found, host, on_end=partial(_note_end, ended)
                )

                run.start()
                run.receive(claimed.inbox)

                async with asyncio.timeout(5):
                    settled = await ended
                assert settled is not None
                assert settled.status is TaskStatus.COMPLETED
                assert settled.output == "7"
            host.close()
