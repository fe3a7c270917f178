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
_ID_IN_MEMBER: Final = 20 + 21 + 17
"""Where the id begins in what `ready_place` in `flows.lua` makes."""
_LOADED_AT_ONCE: Final = 200

Taken = list[tuple[str, int]]


async def take(session: Session, request: ClaimRequest) -> list[ClaimedFlow]:
    """Make ready flows the worker's own, and read them."""
    wanted = _fields(request, await _versions(session, request))
    partitions = session.partitions
    if request.flow_id is not None or partitions.count == 1:
        part = 0 if request.flow_id is None else partitions.of(request.flow_id)
        return await _take(session, request, part, wanted)
    found: list[ClaimedFlow] = []
    while True:
        best = await _best(session, request, {**wanted, "limit": max(request.limit - len(found), 0)})
        if not best:
            return found
        some = await _take_best(session, request, wanted, best, found)
        found += some
        if len(some) == len(best):
            return found  # else others were quicker with some of them, and there may be more


async def _take_best(
    session: Session,
    request: ClaimRequest,
    wanted: dict[str, Any],
    best: list[str],
    before: list[ClaimedFlow],
) -> list[ClaimedFlow]:
    """Take these flows, of several parts. After an error nothing is left taken, nor what was taken `before`."""
    parts = session.partitions.spread(best, str)
    tasks = [
        asyncio.ensure_future(_take(session, request, part, {**wanted, "only": some}))
        for part, some in parts.items()
    ]
    try:
        await asyncio.gather(*tasks, return_exceptions=True)
        found = [one for task in tasks for one in task.result()]
    except BaseException:
        ended = [task for task in tasks if task.done() and not task.cancelled() and task.exception() is None]
        taken = before + [one for task in ended for one in task.result()]
        leases.give_back(session, request.worker, [(one.flow.id, one.lease.epoch) for one in taken])
        raise
    places = {flow_id: place for place, flow_id in enumerate(best)}
    return sorted(found, key=lambda one: places[one.flow.id])


async def _take(
    session: Session, request: ClaimRequest, partition: int, wanted: dict[str, Any]
) -> list[ClaimedFlow]:
    """Take flows of one part."""
    write = Write[Taken](
        "claim", "claim", partition, (pack(wanted),), partial(_read, request), future=session.future()
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


async def _best(session: Session, request: ClaimRequest, wanted: dict[str, Any]) -> list[str]:
    """Ask each part for its best, and choose from those; what somebody else takes in the meantime is left to them."""

    def read(answer: list[Any]) -> list[bytes]:
        _read(request, [answer[0], *answer[1:6], []])
        return [bytes(member) for member in answer[6]]

    looks = [
        Write[list[bytes]](
            "claim", "claim", part, (pack({**wanted, "look": True}),), read, future=session.future()
        )
        for part in range(session.partitions.count)
    ]
    best = await asyncio.gather(*(session.write(look) for look in looks))
    first = sorted(chain.from_iterable(best))[: wanted["limit"]]
    return [member[_ID_IN_MEMBER:].decode() for member in first]


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
        ready = {version.decode() for some in await session.ask_all("versions", kinds) for version in some}
        versions = list({*versions, *wanted.select(sorted(ready))})
    return versions


def _fields(request: ClaimRequest, versions: list[str] | None) -> dict[str, Any]:
    return {
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


def _read(request: ClaimRequest, answer: list[Any]) -> Taken:
    if answer[0] == b"dead":
        raise LeaseLost(f"worker {request.worker!r} is not alive in the log; register again under a new id")
    return [(flow_id.decode(), int(epoch)) for flow_id, epoch in answer[6]]


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
