"""Give ready flows to a worker: first those whose time has come become ready, then the best are taken.

Taking is one script. Reading what was taken is another for each flow, after it: nobody but the new owner can add to
their histories. A process that dies in between leaves flows with an owner that runs none of them; the reaper frees
them.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import lru_cache, partial
from itertools import chain, combinations
from typing import Any, Final

import msgspec

from ergon.core.commit import ClaimedFlow, ClaimRequest, Lease
from ergon.core.versions import VersionSet
from ergon.errors import LeaseLost, LogClosed
from ergon.storage.redis import leases, rows
from ergon.storage.redis.session import Session
from ergon.storage.redis.writes import Write, pack

_TAGS_SPELLED_MAX: Final = 3
"""A worker with so many tags asks for each of the eight sets they make, whether a flow has it or not: however many
other sets there are in the log, as with a tag for each machine, its claim costs the same."""
_LOADED_AT_ONCE: Final = 200

Taken = list[tuple[str, int]]


async def take(session: Session, request: ClaimRequest) -> list[ClaimedFlow]:
    """Make ready flows the worker's own, and read them."""
    versions = await _versions(session, request)
    write = Write[Taken](
        "claim", "claim", "", (_packed(request, versions),), partial(_read, request), future=session.future()
    )
    session.submit(write, write.done)
    future = write.future
    assert future is not None
    try:
        return await _load(session, request.worker, await asyncio.shield(future))
    except BaseException:
        # Cancelled, or the reading failed: whoever asked will never know what it owns. Give it back.
        future.add_done_callback(partial(_give_back, session, request.worker))
        raise


async def _versions(session: Session, request: ClaimRequest) -> list[str] | None:
    """The versions to look for; None: any. Ranges are chosen from those that ready flows have."""
    if request.versions is None:
        return None
    wanted = _parsed(request.versions)
    if wanted.all:
        return None
    versions = list(wanted.names)
    if wanted.ranges and request.flow_id is None:
        kinds = pack({"queues": request.queues, "names": request.names, "sets": _sets(request)})
        ready = [version.decode() for version in await session.ask("versions", 0, kinds)]
        versions = list({*versions, *wanted.select(ready)})
    return versions


def _packed(request: ClaimRequest, versions: list[str] | None) -> bytes:
    return pack(
        {
            "worker": request.worker,
            "names": request.names,
            "queues": request.queues,
            "versions": versions,
            "tags": request.tags,
            "sets": _sets(request),
            "limit": request.limit,
            "stalled_max": request.claims_stalled_max,
            "flow": request.flow_id,
            "timeouts": {name: float(seconds) for name, seconds in request.timeouts.items()},
            "due": request.due,
        }
    )


def _read(request: ClaimRequest, answer: list[Any]) -> Taken:
    if answer[0] == b"dead":
        raise LeaseLost(f"worker {request.worker!r} is not alive in the log; register again under a new id")
    return [(flow_id.decode(), int(epoch)) for flow_id, epoch in answer[5]]


async def _load(session: Session, worker: str, taken: Taken) -> list[ClaimedFlow]:
    """Read flows just taken, with their histories and unread messages.

    One that an operator took away meanwhile is left out. One that cannot be read is parked, so that nobody claims it
    again and again.
    """
    found: list[ClaimedFlow] = []
    partitions = session.partitions
    for start in range(0, len(taken), _LOADED_AT_ONCE):
        some = taken[start : start + _LOADED_AT_ONCE]
        asked = [
            partitions.call_on(
                partitions.of(flow_id), "read", (b"claimed", flow_id.encode(), worker.encode(), b"%d" % epoch)
            )
            for flow_id, epoch in some
        ]
        for (flow_id, epoch), answer in zip(some, await session.read(asked), strict=True):
            if not answer:
                continue
            try:
                found.append(_claimed(flow_id, Lease(worker, epoch), answer))
            except rows.UNREADABLE:
                values = (worker.encode(), flow_id.encode())
                await session.write(
                    Write[None]("park", "park", flow_id, values, lambda _: None, future=session.future())
                )
    return found


def _claimed(flow_id: str, lease: Lease, answer: list[Any]) -> ClaimedFlow:
    kept, happened, waiting, newest = answer
    return ClaimedFlow(
        rows.flow_record(flow_id, rows.pairs(kept)),
        lease,
        rows.events(happened),
        rows.messages(flow_id, waiting),
        int(newest),
    )


def _give_back(session: Session, worker: str, taken: asyncio.Future[Taken]) -> None:
    if not taken.cancelled() and taken.exception() is None and taken.result():
        with suppress(LogClosed):
            leases.give_back(session, worker, taken.result())


@lru_cache(maxsize=64)
def _parsed(versions: tuple[str, ...]) -> VersionSet:
    """A worker asks for the same ones all its life."""
    return VersionSet.parse(versions)


def _sets(request: ClaimRequest) -> list[str] | None:
    """The sets of tags, as the log writes them, that the worker may take; None: choose from those that there are."""
    return _subsets(request.tags) if len(request.tags) <= _TAGS_SPELLED_MAX else None


@lru_cache(maxsize=64)
def _subsets(tags: tuple[str, ...]) -> list[str]:
    sizes = range(len(tags) + 1)
    sets = chain.from_iterable(combinations(sorted({*tags}), size) for size in sizes)
    return [msgspec.json.encode(some).decode() for some in sets]
