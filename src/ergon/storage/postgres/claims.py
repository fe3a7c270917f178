"""Give ready flows to a worker: first those whose time has come become ready, then the best are taken and read.

All of it is one transaction, under a lock of the worker's row. So nobody can declare the worker dead until it has
ended, and nobody can add to the flows that it takes until it has read them.

What a crash leaves behind: before the commit, nothing. After it, flows with an owner that has not heard of them: it
dies, or gives them back (`disown`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain, combinations, groupby
from operator import itemgetter
from typing import Any, Final

from ergon.core.commit import ClaimedFlow, ClaimRequest, Lease, Received
from ergon.core.history import Event
from ergon.core.status import TaskStatus
from ergon.core.versions import VersionSet
from ergon.errors import LogDamaged
from ergon.storage.postgres import leases, rows
from ergon.storage.postgres.packs import events_of
from ergon.storage.postgres.statements import statements
from ergon.storage.postgres.transaction import Transaction

_SQL: Final = statements("claims.sql")
_TAGS_SPELLED_MAX: Final = 3
"""A worker with so many tags asks for each of the eight sets they make, whether a flow has it or not: however many
other sets there are in the log, as with a tag for each machine, its claim costs the same."""
NO_VERSION: Final = ""
"""A flow without a version fits every worker."""


async def take(tx: Transaction, request: ClaimRequest) -> list[ClaimedFlow]:
    """Make ready flows the worker's own, and read them."""
    await leases.check_alive(tx, request.worker, hold=False)
    chosen = await _choose(tx, request)
    if not chosen:
        return []
    # After the flows' rows, for a claim that finds nothing shall write nothing, not even a lock. Whoever declares the
    # worker dead waits for no row that is locked here: these flows have no owner yet.
    await leases.check_alive(tx, request.worker, hold=True)
    owned = {
        row[0]: row
        for row in await tx.write_rows(
            _SQL["own"],
            chosen,
            request.worker,
            tx.now,
            request.claims_stalled_max,
            list(request.timeouts),
            [repr(float(seconds)) for seconds in request.timeouts.values()],
        )
    }
    taken: list[Any] = []
    for flow_id in chosen:
        row = owned[flow_id]
        flow = rows.flow(row)
        if flow.status is TaskStatus.PARKED:
            _let_go(tx, [flow_id])
        else:
            taken.append((flow, row[-1]))
    return await _read(tx, request.worker, taken)


async def _read(tx: Transaction, worker: str, taken: list[Any]) -> list[ClaimedFlow]:
    ids = [flow.id for flow, _ in taken]
    unread: dict[str, list[Received]] = {}
    newest: dict[str, int] = {}
    for row in await tx.rows(_SQL["load_inbox"], ids) if ids else []:
        newest[row[0]] = row[1]
        if row[2] is not None:
            unread.setdefault(row[0], []).append(rows.message(row[2:]))
    events, damaged = await _histories(tx, [flow.id for flow, last in taken if last])
    if damaged:
        await tx.write(_SQL["park"], list(damaged), list(damaged.values()))
        _let_go(tx, damaged)
    return [
        ClaimedFlow(
            flow,
            Lease(worker, flow.epoch),
            events.get(flow.id, []),
            unread.get(flow.id, []),
            newest.get(flow.id, 0),
        )
        for flow, _ in taken
        if flow.id not in damaged
    ]


def _let_go(tx: Transaction, flow_ids: Iterable[str]) -> None:
    """Tell of flows that the claim parked: fewer were taken than there may be, so it is worth to look again."""
    tx.settled.update(dict.fromkeys(flow_ids))
    tx.ready = True


async def _histories(
    tx: Transaction, flow_ids: Sequence[str]
) -> tuple[dict[str, list[Event]], dict[str, str]]:
    """The events of flows, and what is damaged of those whose cannot be read: that stops nobody else's claim."""
    events: dict[str, list[Event]] = {}
    damaged: dict[str, str] = {}
    found = await tx.rows(_SQL["load_events"], flow_ids) if flow_ids else []
    for flow_id, of_flow in groupby(found, itemgetter(0)):
        try:
            events[flow_id] = events_of([row[1:] for row in of_flow], flow_id)
        except LogDamaged as error:
            damaged[flow_id] = rows.kept(f"{error}. Then resume the flow")
    return events, damaged


async def _choose(tx: Transaction, request: ClaimRequest) -> list[str]:
    names = list(request.names)
    if request.flow_id is not None:
        await tx.write(_SQL["promote_one"], request.flow_id, tx.now)
        return [row[0] for row in await tx.rows(_SQL["take_one"], request.flow_id, names)]
    if request.limit <= 0:
        return []
    if request.due and await tx.write(_SQL["promote"], names, tx.now) == 0:
        tx.wrote = False  # a claim that finds nothing leaves nothing behind
    queues = list(request.queues)
    tags = await _tag_sets(tx, request.tags, queues, names)
    versions = await _versions(tx, request.versions, queues, names, tags)
    found = await tx.rows(_SQL["take"], queues, names, tags, versions, request.limit)
    if found and found[0][1] > len(found):
        tx.ready = True  # more were locked than are taken: whoever passed over those may look again
    return [row[0] for row in found]


async def _versions(
    tx: Transaction, wanted: tuple[str, ...] | None, queues: list[str], names: list[str], tags: list[str]
) -> list[str]:
    """The versions to look for, as the index has them."""
    if wanted is not None:
        parsed = _parsed(wanted)
        if not parsed.all and not parsed.ranges:
            return [NO_VERSION, *parsed.names]
    else:
        parsed = VersionSet(all=True)
    ready = [row[0] for row in await tx.rows(_SQL["versions_ready"], queues, names, tags)]
    if parsed.all:
        return ready
    there = [version for version in ready if version != NO_VERSION]
    return [NO_VERSION, *{*parsed.names, *parsed.select(there)}]


@lru_cache(maxsize=64)
def _parsed(versions: tuple[str, ...]) -> VersionSet:
    """A worker asks for the same ones all its life."""
    return VersionSet.parse(versions)


async def _tag_sets(tx: Transaction, tags: tuple[str, ...], queues: list[str], names: list[str]) -> list[str]:
    """The sets of tags, as the log writes them, that a worker with these tags may take."""
    if len(tags) <= _TAGS_SPELLED_MAX:
        return list(_subsets(tags))
    ready = await tx.rows(_SQL["tags_ready"], queues, names)
    return [row[0] for row in ready if set(json.loads(row[0])) <= set(tags)]


@lru_cache(maxsize=64)
def _subsets(tags: tuple[str, ...]) -> tuple[str, ...]:
    sizes = range(len(tags) + 1)
    return tuple(
        rows.as_json(some) for some in chain.from_iterable(combinations(sorted(tags), size) for size in sizes)
    )
