"""The bare drivers of the servers: one connection that writes rows like Ergon's events, with nothing around it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.floor import BATCH_MAX, EventRow, row
from benchmarks.model import Figures, Params
from benchmarks.w1_sequential import spans

Write = Callable[[list[EventRow]], Awaitable[object]]
CREATE = (
    "CREATE TABLE events (flow_id text NOT NULL, seq bigint NOT NULL, kind text NOT NULL, op text NOT NULL, "
    "name text NOT NULL, digest text NOT NULL, payload text, at double precision NOT NULL, source text NOT NULL, "
    "attempt int NOT NULL, PRIMARY KEY (flow_id, seq))"
)
INSERT = "INSERT INTO events VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
INSERT_MANY = (
    "INSERT INTO events SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], "
    "$6::text[], $7::text[], $8::float8[], $9::text[], $10::int[])"
)


async def connect(url: str) -> tuple[Write, Callable[[], Awaitable[object]]]:
    """One connection: how to write rows at once, durably, and how to close it."""
    if url.startswith("postgres"):
        return await _connect_postgres(url)
    return await _connect_redis(url)


async def _connect_postgres(url: str) -> tuple[Write, Callable[[], Awaitable[object]]]:
    import asyncpg

    connection = await asyncpg.connect(url)
    await connection.execute(CREATE)
    one, many = await connection.prepare(INSERT), await connection.prepare(INSERT_MANY)

    async def write(rows: list[EventRow]) -> None:
        if len(rows) == 1:
            await one.fetch(*rows[0])
        else:
            await many.fetch(*(list(column) for column in zip(*rows, strict=True)))

    return write, connection.close


async def _connect_redis(url: str) -> tuple[Write, Callable[[], Awaitable[object]]]:
    import redis.asyncio

    client = redis.asyncio.Redis.from_url(url)

    async def write(rows: list[EventRow]) -> None:
        pipe = client.pipeline(transaction=False)
        for new in rows:
            pipe.rpush(new[0], repr(new))
        await pipe.execute()

    return write, client.aclose


async def writing(url: str, measure: Callable[[Write], Awaitable[Figures]]) -> Figures:
    """Connect, measure, close."""
    write, close = await connect(url)
    try:
        return await measure(write)
    finally:
        await close()


def w1(params: Params) -> Figures:
    """The time between two awaited commits of one row on one connection."""

    async def measure(write: Write) -> Figures:
        for seq in range(params["warm"]):
            await write([row("warm", seq)])
        moments = []
        for seq in range(params["steps"] + 1):
            moments.append(time.perf_counter())
            await write([row("measured", seq)])
        return spans(moments)

    return asyncio.run(writing(params["url"], measure))


def w2(params: Params) -> Figures:
    """Bare tasks on asyncio whose rows one connection group-commits."""

    async def measure(write: Write) -> Figures:
        group = BareGroup(write)

        async def task(name: str) -> None:
            for seq in range(params["steps"]):
                await group.write(row(name, seq))

        start = time.perf_counter()
        await asyncio.gather(*(task(str(n)) for n in range(params["flows"])))
        return {"all_steps_per_s": params["flows"] * params["steps"] / (time.perf_counter() - start)}

    return asyncio.run(writing(params["url"], measure))


def w3(params: Params) -> Figures:
    """The same gather without durability, and a bare commit."""
    from benchmarks import w3_fan_out

    async def measure(write: Write) -> Figures:
        return await w3_fan_out.bare(params, lambda new: write([new]))

    return asyncio.run(writing(params["url"], measure))


class BareGroup:
    """What waits while a write is under way shares the next one."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._jobs: list[tuple[EventRow, asyncio.Future[None]]] = []
        self._going: asyncio.Task[None] | None = None

    def write(self, new: EventRow) -> asyncio.Future[None]:
        """Resolved when the row is durable."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._jobs.append((new, done))
        if self._going is None:
            self._going = asyncio.create_task(self._run())
        return done

    async def _run(self) -> None:
        while self._jobs:
            batch: list[Any] = self._jobs[:BATCH_MAX]
            del self._jobs[:BATCH_MAX]
            await self._write([new for new, _ in batch])
            for _, done in batch:
                done.set_result(None)
        self._going = None
