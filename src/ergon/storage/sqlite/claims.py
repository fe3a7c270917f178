"""Give ready flows to a worker: first those whose time has come become ready, then the best are taken.

Taking is a write and lands in the group commit. Reading what was taken is not: histories are read after it, on a
reading connection, so that a claim of long histories keeps nobody from writing. Nobody but the new owner can add to
them. Where none of the flows has a history yet their rows come with the claim, which saves new flows the wait.
"""

from __future__ import annotations

import json
import sqlite3
from functools import lru_cache
from itertools import chain, combinations
from typing import Final, NamedTuple

from ergon.core.commit import ClaimedFlow, ClaimRequest, FlowRecord, Lease, Received
from ergon.core.status import TaskStatus
from ergon.core.versions import VersionSet
from ergon.storage.sqlite import catalog, damage, joined, leases, rows
from ergon.storage.sqlite.errors import is_too_long, is_unreadable
from ergon.storage.sqlite.statements import statements
from ergon.storage.sqlite.transaction import Transaction, as_json

_SQL: Final = statements("claims.sql")
LATER: Final = tuple(_SQL[name] for name in ("load_flows", "owned", "own"))
FIRST: Final = tuple(_SQL[name] for name in ("take_any", "promote"))
"""What a worker's first look needs, which finds nothing; and `LATER`, when it finds something: see `priming.py`."""
_TAGS_SPELLED_MAX: Final = 3
"""A worker with so many tags asks for each of the eight sets they make, whether a flow has it or not: however many
other sets there are in the log, as with a tag for each machine, its claim costs the same."""


class Taken(NamedTuple):
    """What a claim made the worker's own, best first."""

    nums: list[int]
    rows: str | None = None
    """The flows as JSON, where there is nothing else to read."""


def take(tx: Transaction, request: ClaimRequest) -> Taken:
    """Make ready flows the worker's own."""
    leases.check_alive(tx, request.worker)
    while True:
        nums = _choose(tx, request)
        if not nums:
            return Taken([])

        def own(these: str) -> int:
            return tx.run(
                _SQL["own"],
                nums=these,
                now=tx.now,
                worker=request.worker,
                stalled_max=request.claims_stalled_max,
                timeouts=json.dumps(dict(request.timeouts)),
            )

        if damage.write_sound(tx, nums, own) or request.flow_id is not None or not tx.damaged:
            break
        # Every one chosen is damaged: choose again, without them.
    owned, parked, past = tx.one(_SQL["owned"], nums=as_json(nums))
    let_go = [damage.readable(flow_id) for flow_id in json.loads(parked)]
    if let_go:
        tx.settled.update(dict.fromkeys(let_go))
        tx.ready = True  # fewer were taken than there may be: look again
    taken = rows.numbers(owned)
    return Taken(taken, None if past or not taken else _rows_of_new(tx, taken))


def new_flows(taken: Taken, worker: str) -> list[ClaimedFlow] | None:
    """The flows of a claim that came with their rows; None: `load` them."""
    if taken.rows is None:
        return [] if not taken.nums else None
    try:
        records = rows.flow_records(taken.rows)
    except damage.UNREADABLE:
        return None
    return [ClaimedFlow(flow, Lease(worker, flow.epoch), [], []) for flow in records]


def load(connection: sqlite3.Connection, worker: str, nums: list[int]) -> tuple[list[ClaimedFlow], list[int]]:
    """Read flows just taken, with their histories and unread messages; and tell which cannot be read.

    One that an operator took away meanwhile is left out. One damaged row keeps only its own flow from running. Where
    all of them are too large together they are read in parts, and one flow that is too large page by page.
    """
    try:
        with joined.bounded(connection):
            return _load(connection, worker, nums), []
    except damage.UNREADABLE as error:
        if not is_unreadable(error):
            raise
        if isinstance(error, sqlite3.Error) and is_too_long(error) and len(nums) > 1:
            half = len(nums) // 2
            (flows, damaged), (others, damaged_too) = (
                load(connection, worker, part) for part in (nums[:half], nums[half:])
            )
            return flows + others, damaged + damaged_too
    return damage.one_by_one(nums, lambda num: _load_one(connection, worker, num))


def park_unreadable(tx: Transaction, worker: str, nums: list[int]) -> None:
    """Park flows just taken that cannot be read, so that nobody claims them again and again."""
    tx.run(_SQL["park_unreadable"], worker=worker, nums=as_json(nums))
    tx.settled.update((damage.name_of(tx.connection, num), None) for num in nums)
    tx.ready = True  # fewer were taken than there may be: look again


def _rows_of_new(tx: Transaction, nums: list[int]) -> str | None:
    try:
        with joined.bounded(tx.connection):
            return str(tx.one(_SQL["load_flows"], nums=as_json(nums))[0])
    except damage.UNREADABLE as error:
        if not is_unreadable(error):
            raise
        return None


def _load(connection: sqlite3.Connection, worker: str, nums: list[int]) -> list[ClaimedFlow]:
    flows = {"nums": as_json(nums)}
    (found,) = connection.execute(_SQL["load_flows"], flows).fetchone()
    records = rows.flow_records(found)
    newest, waiting = connection.execute(_SQL["load_inbox"], flows).fetchone()
    unread: dict[str, list[Received]] = {}
    for message in rows.messages(waiting):
        unread.setdefault(message.flow_id, []).append(message)
    (happened,) = connection.execute(_SQL["load_events"], flows).fetchone()
    events = rows.events_by_flow(happened)
    return [
        ClaimedFlow(
            flow, Lease(worker, flow.epoch), events.get(flow.id, []), unread.get(flow.id, []), int(newest)
        )
        for flow in records
        if _is_owned(flow, worker)
    ]


def _load_one(connection: sqlite3.Connection, worker: str, num: int) -> list[ClaimedFlow]:
    """The same of one flow, however large it is."""
    with joined.one_moment(connection):
        (found,) = connection.execute(_SQL["load_flows"], {"nums": as_json([num])}).fetchone()
        return [
            ClaimedFlow(
                flow,
                Lease(worker, flow.epoch),
                catalog.history(connection, flow.id, 0, None),
                catalog.unread(connection, flow.id),
                catalog.newest_message(connection),
            )
            for flow in rows.flow_records(found)
            if _is_owned(flow, worker)
        ]


def _is_owned(flow: FlowRecord, worker: str) -> bool:
    return flow.status is TaskStatus.RUNNING and flow.owner == worker


def _choose(tx: Transaction, request: ClaimRequest) -> list[int]:
    names = as_json(request.names)
    if request.flow_id is not None:
        tx.run(_SQL["promote_one"], flow=request.flow_id, now=tx.now)
        return rows.numbers(tx.one(_SQL["take_one"], flow=request.flow_id, names=names)[0])
    if request.limit <= 0:
        return []
    if request.due:
        _promote(tx, names)
    kinds = {"queues": as_json(request.queues), "names": names}
    kinds["tags"] = _tag_sets(tx, request.tags, **kinds)
    values = {**kinds, "limit": request.limit, "damaged": damage.passed_over(tx)}
    wanted = VersionSet(all=True) if request.versions is None else _parsed(request.versions)
    if wanted.all:
        row = tx.one(_SQL["take_any"], **values)
    else:
        versions = list(wanted.names)
        if wanted.ranges:
            ready = tx.one(_SQL["versions_ready"], **kinds)[0]
            versions = list({*versions, *wanted.select(json.loads(ready))})
        row = tx.one(_SQL["take"], **values, versions=as_json([None, *versions]))
    return rows.numbers(row[0])


@lru_cache(maxsize=64)
def _parsed(versions: tuple[str, ...]) -> VersionSet:
    """A worker asks for the same ones all its life."""
    return VersionSet.parse(versions)


def _tag_sets(tx: Transaction, tags: tuple[str, ...], queues: str, names: str) -> str:
    """The sets of tags, as the log writes them, that a worker with these tags may take."""
    if len(tags) <= _TAGS_SPELLED_MAX:
        return _subsets(tags)
    ready = json.loads(tx.one(_SQL["tags_ready"], queues=queues, names=names)[0])
    return as_json(text for text in ready if _has_all(tags, text))


@lru_cache(maxsize=64)
def _subsets(tags: tuple[str, ...]) -> str:
    sizes = range(len(tags) + 1)
    return as_json(
        as_json(some) for some in chain.from_iterable(combinations(sorted(tags), size) for size in sizes)
    )


def _has_all(tags: tuple[str, ...], text: str) -> bool:
    try:
        return set(json.loads(text)) <= set(tags)
    except (ValueError, TypeError):
        return False  # a damaged flow, which nobody can run


def _promote(tx: Transaction, names: str) -> None:
    values = {"names": names, "now": tx.now, "damaged": damage.passed_over(tx)}
    try:
        tx.run(_SQL["promote"], **values)
    except sqlite3.IntegrityError:
        due = rows.numbers(tx.one(_SQL["due"], **values)[0])
        damage.write_sound(tx, due, lambda nums: tx.run(_SQL["promote_these"], nums=nums, now=tx.now))
