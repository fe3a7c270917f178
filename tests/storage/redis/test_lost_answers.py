"""Connections that break, servers that restart, scripts that are forgotten: each write is done once, and told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from ergon.core.commit import Commit, FlowFilter, Settled
from ergon.core.status import TaskStatus
from ergon.errors import LogBusy
from ergon.storage.redis import RedisExecutionLog, connection
from tests.servers.redis import new_prefix, server
from tests.storage.kit import claim, claimed_flow, commit, commit_all, event, new_flow, register, signal


class Proxy:
    """Between the log and the server: cuts a connection after the server did what was asked, before it answers.

    Or before the server hears of it, which it does when it is `released`, on the old connection.
    """

    def __init__(self) -> None:
        self.cuts = 0
        """How many answers get lost from now on."""
        self.pause_seconds = 0.0
        """Before each 64 kB that pass on to the server."""
        self.holds = b""
        """The next request that holds these words is held back."""
        self.released = asyncio.Event()
        self.came_late = asyncio.Event()
        """The server has answered what was held back."""
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_server = await asyncio.open_connection("127.0.0.1", server().port)

        async def ask() -> None:
            while data := await reader.read(65_536):
                if self.holds and self.holds in data:
                    self.holds = b""
                    tasks[1].cancel()
                    writer.close()
                    await self.released.wait()
                    to_server.write(data)
                    await there.read(65_536)
                    self.came_late.set()
                    return
                if self.pause_seconds:
                    await asyncio.sleep(self.pause_seconds)
                to_server.write(data)
                await to_server.drain()

        async def answer() -> None:
            while data := await there.read(65_536):
                if self.cuts and b"+PONG" not in data:
                    self.cuts -= 1
                    return
                writer.write(data)

        tasks = [asyncio.ensure_future(ask()), asyncio.ensure_future(answer())]
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[1].cancelled():
                await tasks[0]
        for task in tasks:
            task.cancel()
        to_server.close()
        writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    between = Proxy()
    await between.start()
    yield between
    await between.stop()


@pytest.fixture
async def log(proxy: Proxy) -> AsyncIterator[RedisExecutionLog]:
    async with RedisExecutionLog(proxy.url, prefix=new_prefix(), ephemeral=True) as opened:
        yield opened


@pytest.mark.parametrize("cuts", [1, 3])
async def test_a_message_without_a_key_whose_answer_got_lost_is_kept_once(log, proxy, cuts):
    await log.create(new_flow("f1"))

    proxy.cuts = cuts
    await log.send(signal("f1"))

    assert proxy.cuts == 0
    assert len(await log.inbox("f1")) == 1


async def test_a_message_that_reaches_the_server_long_after_it_was_sent_again_is_kept_once(log, proxy):
    """A network that held packets back brings them when the writer is at later calls."""
    await log.create(new_flow("f1"))
    await log.create(new_flow("f2"))

    proxy.holds = b"one-and-only"
    await log.send(signal("f1", payload='"one-and-only"'))
    await log.send(signal("f2"))
    proxy.released.set()
    await asyncio.wait_for(proxy.came_late.wait(), 30)

    assert len(await log.inbox("f1")) == 1


async def test_a_flow_whose_creation_was_not_answered_is_new_to_whoever_created_it(log, proxy):
    proxy.cuts = 1

    assert await log.create(new_flow("f1")) is None
    assert proxy.cuts == 0


async def test_a_claim_whose_answer_got_lost_brings_its_flows(log, proxy):
    await register(log)
    for n in range(5):
        await log.create(new_flow(f"f{n}"))

    proxy.cuts = 2
    claimed = await claim(log)

    assert proxy.cuts == 0
    assert [one.lease.claims for one in claimed] == [1] * 5


async def test_commits_whose_answers_got_lost_are_acknowledged_once_each(log, proxy):
    """Also those without events, which nothing but their number tells."""
    await register(log)
    leases = [await claimed_flow(log, f"f{n}") for n in range(6)]
    await log.send(signal("f0"))
    (message,) = await log.inbox("f0")

    proxy.cuts = 1
    told = await commit_all(
        log,
        Commit("f0", leases[0], consumed=((message.id, 1),)),
        Commit("f1", leases[1], (event(1),)),
        Commit("f1", leases[1], (event(2),)),
        Commit("f2", leases[2], settled=Settled(TaskStatus.COMPLETED, "1")),
        Commit("f3", leases[3], (event(1),), settled=Settled(TaskStatus.SUSPENDED)),
        Commit("f4", leases[4], children=(new_flow("c", parent_id="f4", parent_op="0:1"),)),
    )

    assert proxy.cuts == 0
    assert told == [None] * 6
    assert len(await log.history("f1")) == 2
    assert await log.inbox("f0") == []
    assert await log.inbox("f4") == [], "the child is its own, not one that was there before"


async def test_values_that_take_longer_to_travel_than_an_answer_may_take_are_written_all_the_same(
    proxy, monkeypatch
):
    """Sent again from the first one on, they would never arrive."""
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 2.0)
    async with RedisExecutionLog(
        proxy.url, prefix=new_prefix(), ephemeral=True, busy_timeout_seconds=3.0
    ) as log:
        await log.create(new_flow("f1"))
        large = '"' + "x" * 250_000 + '"'

        proxy.pause_seconds = 0.02
        started = asyncio.get_running_loop().time()
        await asyncio.gather(*(log.send(signal("f1", payload=large)) for _ in range(40)))
        took = asyncio.get_running_loop().time() - started
        proxy.pause_seconds = 0.0

        assert took > connection.ANSWER_SECONDS, "else this shows nothing"
        assert len(await log.inbox("f1")) == 40


async def test_an_operators_act_whose_answer_got_lost_is_done_once(log, proxy):
    await register(log)
    lease = await claimed_flow(log)
    await commit(log, Commit("f1", lease, settled=Settled(TaskStatus.FAILED, '"boom"')))

    proxy.cuts = 1
    assert (await log.move("f1", TaskStatus.PENDING)).status is TaskStatus.PENDING

    assert [one.kind for one in await log.history("f1")] == ["flow_retried"]


async def test_scripts_that_the_server_forgot_are_sent_again(own_server):
    async with RedisExecutionLog(own_server.url) as log:
        await register(log)
        lease = await claimed_flow(log)
        with own_server.client() as client:
            client.script_flush()

        told = await commit_all(log, *(Commit("f1", lease, (event(n),)) for n in range(1, 20)))

        assert told == [None] * 19
        with own_server.client() as client:
            client.script_flush()
        assert len(await log.inbox("f1")) == 0


async def test_a_server_that_does_not_come_back_is_waited_for_so_long_and_no_longer(own_server):
    async with RedisExecutionLog(own_server.url, busy_timeout_seconds=0.3) as log:
        await register(log)
        lease = await claimed_flow(log)
        own_server.kill()

        with pytest.raises(LogBusy, match="cannot be reached"):
            await commit(log, Commit("f1", lease, (event(1),)))
        with pytest.raises(LogBusy):
            await log.find("f1")
        own_server.start()
        await commit(log, Commit("f1", lease, (event(1),)))
        assert len(await log.history("f1")) == 1


async def test_cut_connections_neither_lose_nor_double_anything(log):
    """`CLIENT KILL` again and again while many write."""
    await register(log)
    leases = {f"f{n}": await claimed_flow(log, f"f{n}") for n in range(10)}
    over = asyncio.Event()

    async def cut() -> None:
        with server().client() as client:
            while not over.is_set():
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                await asyncio.sleep(0.05)

    async def write(flow_id: str) -> None:
        for n in range(1, 31):
            await commit(log, Commit(flow_id, leases[flow_id], (event(n),)))
            await log.send(signal(flow_id, payload=str(n)))

    cutting = asyncio.create_task(cut())
    await asyncio.gather(*map(write, leases))
    over.set()
    await cutting

    for flow_id in leases:
        assert [one.seq for one in await log.history(flow_id)] == list(range(1, 31))
        assert [message.payload for message in await log.inbox(flow_id)] == [str(n) for n in range(1, 31)]
    assert await log.count(FlowFilter()) == {TaskStatus.RUNNING: 10}
