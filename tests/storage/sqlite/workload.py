"""Processes for the crash tests: each runs `python -m tests.storage.sqlite.workload NAME FILE ...`."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import time
from pathlib import Path

from ergon.core.commit import ClaimRequest, Commit
from ergon.errors import LeaseLost, LogBusy, LogFull
from ergon.storage.sqlite import SqliteExecutionLog, blank, place
from tests.storage.kit import claim_one, commit, event, new_flow, register, worker_record


async def append(file: str, name: str, acked: str) -> None:
    """Commit to four flows for ever; note each acknowledged event by one unbuffered line."""
    out = os.open(acked, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    async with SqliteExecutionLog(file) as log:
        worker = f"{name}-{os.getpid()}"
        await register(log, worker, lease_seconds=60)
        await log.reap()

        async def one(flow_id: str) -> None:
            await log.create(new_flow(flow_id))
            while not (claimed := await log.claim(_only(worker, flow_id))):
                await log.reap()
                await asyncio.sleep(0.002)
            lease, seq = claimed[0].lease, len(claimed[0].events)
            while True:
                seq += 1
                await commit(log, Commit(flow_id, lease, (event(seq, payload=f'"{worker}:{seq}"'),)))
                os.write(out, f"{flow_id} {seq} {worker}:{seq}\n".encode())

        await asyncio.gather(*(one(f"{name}-{n}") for n in range(4)))


async def write_for(file: str, name: str, seconds: str) -> None:
    """Commit as fast as one flow can; print how many, and the longest wait."""
    async with SqliteExecutionLog(file) as log:
        await register(log, name)
        await log.create(new_flow(name))
        lease = (await claim_one(log, name, name)).lease
        print("ready", flush=True)
        sys.stdin.readline()
        seq, longest, end = 0, 0.0, time.monotonic() + float(seconds)
        while (started := time.monotonic()) < end:
            seq += 1
            await commit(log, Commit(name, lease, (event(seq),)))
            longest = max(longest, time.monotonic() - started)
        print(seq, longest, flush=True)


async def zombie(file: str) -> None:
    """Claim flow `f1`, say so, and commit whenever a line comes in."""
    async with SqliteExecutionLog(file) as log:
        await register(log, "zombie", lease_seconds=0.2)
        lease = (await claim_one(log, "f1", "zombie")).lease
        print("claimed", flush=True)
        seq = 0
        while await asyncio.to_thread(sys.stdin.readline):
            seq += 1
            try:
                await commit(log, Commit("f1", lease, (event(seq),)))
                print("written", flush=True)
            except LeaseLost:
                print("lost", flush=True)


async def hold(file: str) -> None:
    """Take SQLite's write lock by hand and keep it until a line comes in."""
    import sqlite3

    other = sqlite3.connect(file, isolation_level=None)
    other.execute("PRAGMA wal_autocheckpoint=0")
    other.execute("BEGIN IMMEDIATE")
    print("held", flush=True)
    sys.stdin.readline()
    other.execute("ROLLBACK")
    other.close()


async def limited(file: str) -> None:
    """Run into a file size limit, then go on when it is lifted; print what happened."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    async with SqliteExecutionLog(file) as log:
        await register(log)
        await log.create(new_flow("f1"))
        lease = (await claim_one(log, "f1")).lease
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
        seq, full = 0, None
        while full is None and seq < 2_000:
            try:
                await commit(log, Commit("f1", lease, (event(seq + 1, '"' + "x" * 5_000 + '"'),)))
                seq += 1
            except LogFull as error:
                full = error
        acked = len(await log.history("f1"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await commit(log, Commit("f1", lease, (event(seq + 1),)))
        print(type(full).__name__, acked == seq > 0, len(await log.history("f1")) == seq + 1, flush=True)


async def starved(file: str) -> None:
    """Let SQLite run out of memory in the middle of a batch, commit three events and be killed."""
    import sqlite3

    async with SqliteExecutionLog(file) as log:
        await register(log)
        await log.create(new_flow("f1"))
        lease = (await claim_one(log, "f1")).lease
        # Of the whole process. It cannot be lifted by SQL, hence a process of its own.
        sqlite3.connect(":memory:").execute("PRAGMA hard_heap_limit=12000000")
        try:
            await log.create_all([new_flow(f"large-{n}", input=f'"{"x" * 3_000_000}"') for n in range(3)])
        except Exception as error:
            print(type(error).__name__, flush=True)
        for seq in range(1, 4):
            await commit(log, Commit("f1", lease, (event(seq),)))
        print("written", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


async def count(file: str) -> None:
    """Make seven commits, for failpoints."""
    async with SqliteExecutionLog(file) as log:
        await log.register(worker_record("w1"), lease_seconds=60)
        await log.create(new_flow("f1"))
        lease = (await claim_one(log, "f1")).lease
        for seq in range(1, 8):
            await commit(log, Commit("f1", lease, (event(seq),)))
            print(seq, flush=True)


async def listen(file: str, rounds: str) -> None:
    """Print the time of each hint from elsewhere."""
    heard = asyncio.Event()
    async with SqliteExecutionLog(file) as log:
        log.subscribe(lambda hint: heard.set() if hint.elsewhere else None)
        print("ready", flush=True)
        for _ in range(int(rounds)):
            await heard.wait()
            print(time.monotonic(), flush=True)
            heard.clear()


async def idle(file: str, seconds: str) -> None:
    """Keep a log open and print the processor time that took."""
    async with SqliteExecutionLog(file):
        await asyncio.sleep(1.2)
        before = time.process_time()
        await asyncio.sleep(float(seconds))
        print(time.process_time() - before, flush=True)


async def open_and_die_at(file: str, call: str) -> None:
    """Be killed just before the first call of this function of the system."""
    blank.FLUSHED = frozenset([place.filesystem_of(Path(file).parent)])  # type: ignore[misc] # wherever the tests run
    setattr(os, call, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    print("opening", flush=True)
    await SqliteExecutionLog(file).connect()


def _only(worker: str, flow_id: str) -> ClaimRequest:
    return ClaimRequest(worker=worker, names=("order",), flow_id=flow_id, claims_stalled_max=10_000)


if __name__ == "__main__":
    Path(sys.argv[2]).parent.mkdir(exist_ok=True)
    try:
        asyncio.run(globals()[sys.argv[1]](*sys.argv[2:]))
    except LogBusy as error:
        sys.exit(f"busy: {error}")
