"""Do a sequence of operations to a log and to the model, and compare answers and state after each of them."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Sequence
from typing import Any, Final

from ergon.core.commit import ClaimedFlow, ClaimRequest, Commit, FlowFilter, FlowRecord, Message, WorkerRecord
from ergon.core.status import TaskStatus
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import commit_all, kill_worker, worker_record
from ergon.testing.conformance.oracle.answers import answered, as_found, name_of
from ergon.testing.conformance.oracle.compare import Difference, Seen, compare, equal, matches, plain
from ergon.testing.conformance.oracle.model import Model
from ergon.testing.conformance.oracle.sequences import FLOWS, Op
from ergon.testing.conformance.oracle.values import LATER_SECONDS, make_commit, make_flow

_LOOK_AT_ALL_EVERY: Final = 8


class Comparison:
    """One sequence on one log. `prefix` keeps its flows and workers apart from those of other sequences."""

    def __init__(self, logs: Sequence[ExecutionLog], prefix: str) -> None:
        self._logs, self._prefix = logs, prefix
        self._model = Model()
        self._last: Commit | None = None
        self._compared: dict[str, str] = {}
        """The model's flows as they were when the log showed the same."""
        self._look_at_all = False

    async def run(self, ops: Sequence[Op]) -> None:
        """Raises `Difference`."""
        for number, op in enumerate(ops):
            self._model.flows.tick = number
            self._look_at_all = number % _LOOK_AT_ALL_EVERY == 0 or number == len(ops) - 1
            log = self._logs[op.handle % len(self._logs)]
            try:
                await getattr(self, f"_{op.kind}")(log, **op.args)
            except Difference as difference:
                raise Difference(f"at operation {number}, {op}: {difference}") from None
        await self._same_workers(self._logs[0])

    async def leave(self) -> None:
        """Retire the workers: whoever reaps later need not look at them."""
        for worker in self._model.workers:
            await self._logs[0].retire(worker)

    # -- intake ----------------------------------------------------------------------------------------------

    async def _create(self, log: ExecutionLog, **args: Any) -> None:
        parent = args["parent"] if args["parent"] != args["id"] else None
        new = make_flow(self._prefix, log.now(), args, self._named(parent))
        if args["owner"] is not None:
            new = new._replace(owner=self._named(args["owner"]) or "")
        if new.owner is None:
            there = await answered(log.create(new))
        else:
            there = await answered(log.create_claimed([new]))
            there = there[0] if isinstance(there, list) else there
        if isinstance(there, ClaimedFlow):
            equal("the flow that was created for its owner", there.flow, await log.find(new.id))
            there = None
        elif isinstance(there, FlowRecord):
            equal("the flow that is there", there, await log.find(new.id))
            there = "exists"
        await self._both(log, self._model.create(new), there)

    async def _send(self, log: ExecutionLog, id: str, name: str, payload: str, key: str | None) -> None:
        message = Message(self._prefix + id, "signal", name, payload, key)
        await self._both(log, self._model.send(message), await answered(log.send(message)))

    async def _cancel(
        self, log: ExecutionLog, id: str, name: str, reason: str | None, key: str | None
    ) -> None:
        message = Message(self._prefix + id, "cancel", name, reason, key)
        await self._both(log, self._model.send(message), await answered(log.send(message)))

    async def _move(
        self, log: ExecutionLog, id: str, target: str, only: tuple[str, ...] | None, **said: Any
    ) -> None:
        flow_id, status = self._prefix + id, TaskStatus(target)
        narrowed = None if only is None else [TaskStatus(one) for one in only]
        moved = await answered(log.move(flow_id, status, only=narrowed, **said))
        expected = self._model.move(flow_id, status, only=narrowed, **said)
        await self._both(log, expected, await as_found(log, moved))

    async def _reschedule(self, log: ExecutionLog, id: str, *, later: bool) -> None:
        flow_id = self._prefix + id
        moved = await answered(log.reschedule(flow_id, delay_seconds=LATER_SECONDS if later else None))
        await self._both(log, self._model.reschedule(flow_id, later=later), await as_found(log, moved))

    async def _retry_now(self, log: ExecutionLog, id: str) -> None:
        moved = await answered(log.retry_now(self._prefix + id))
        await self._both(log, self._model.retry_now(self._prefix + id), await as_found(log, moved))

    async def _delete(self, log: ExecutionLog, id: str) -> None:
        answer = await answered(log.delete(self._prefix + id))
        await self._both(log, self._model.delete(self._prefix + id), answer)

    # -- journal ---------------------------------------------------------------------------------------------

    async def _commit(self, log: ExecutionLog, **args: Any) -> None:
        self._last = make_commit(self._model, self._prefix, log.now(), args)
        await self._commit_again(log)

    async def _commit_again(self, log: ExecutionLog) -> None:
        if self._last is not None:
            (error,) = await commit_all(log, self._last)
            await self._both(log, self._model.commit(self._last), name_of(error))

    async def _batch(self, log: ExecutionLog, commits: tuple[dict[str, Any], ...]) -> None:
        """Commits at once land as if in some order.

        Of one family only one: when a child ends in the very transaction that ends its parent, whether it was asked to
        cancel before is of no account, and logs differ.
        """
        values = (make_commit(self._model, self._prefix, log.now(), args) for args in commits)
        made: list[Commit] = []
        for one in values:
            if not any(self._are_related(one, other) for other in made):
                made.append(one)
        errors = await commit_all(log, *made)
        seen = await self._look_at(log, [self._prefix + id for id in FLOWS])
        differences: list[Difference] = []
        for order in itertools.permutations(range(len(made))):
            model = copy.deepcopy(self._model)
            expected = {place: model.commit(made[place]) for place in order}
            try:
                for place, error in enumerate(errors):
                    equal(f"the answer to commit {place}", name_of(error), expected[place])
                compare(model, seen, self._prefix)
            except Difference as difference:
                differences.append(difference)
            else:
                self._model = model
                return
        raise differences[0]

    def _are_related(self, one: Commit, other: Commit) -> bool:
        root = self._model.flows.root
        families = [
            {
                root(id)
                for id in (it.flow_id, *(c.id for c in it.children), *(c.flow_id or "" for c in it.cancels))
            }
            for it in (one, other)
        ]
        return root(one.flow_id) in families[1] or root(other.flow_id) in families[0]

    # -- leases ----------------------------------------------------------------------------------------------

    async def _register(self, log: ExecutionLog, worker: str) -> None:
        made = worker_record(self._prefix + worker)
        kept = await answered(log.register(made, lease_seconds=LATER_SECONDS))
        answer = None if isinstance(kept, WorkerRecord) else kept
        await self._both(log, self._model.register(made.id), answer)

    async def _renew(self, log: ExecutionLog, worker: str, doing: str) -> None:
        worker_id, does = self._prefix + worker, {self._prefix + doing: "busy"}
        until = await answered(log.renew(worker_id, lease_seconds=LATER_SECONDS, doing=does))
        answer = None if isinstance(until, float) else until
        await self._both(log, self._model.renew(worker_id, does), answer)

    async def _drain(self, log: ExecutionLog, worker: str) -> None:
        self._model.note_draining(self._prefix + worker)
        await self._both(log, None, await answered(log.note_draining(self._prefix + worker)))

    async def _retire(self, log: ExecutionLog, worker: str) -> None:
        expected = self._model.end_worker(self._prefix + worker, "stopped")
        await self._both(log, expected, await answered(log.retire(self._prefix + worker)))

    async def _die(self, log: ExecutionLog, worker: str) -> None:
        worker_id = self._prefix + worker
        if self._model.is_alive(worker_id):
            await kill_worker(log, worker_id)
            self._model.end_worker(worker_id, "dead")
            await self._both(log, None, None)

    async def _disown(self, log: ExecutionLog, worker: str, knows: tuple[str, ...]) -> None:
        known = [(flow.id, flow.epoch) for id in knows if (flow := self._model.find(self._prefix + id))]
        answer = await log.disown(self._prefix + worker, known)
        await self._both(log, self._model.disown(self._prefix + worker, known), sorted(answer))

    async def _claim(self, log: ExecutionLog, **args: Any) -> None:
        request = ClaimRequest(
            worker=self._prefix + args["worker"],
            names=tuple(self._prefix + name for name in args["names"]),
            queues=args["queues"],
            versions=args["versions"],
            tags=args["tags"],
            limit=args["limit"],
            flow_id=self._named(args["id"]),
        )
        claimed = await answered(log.claim(request))
        if not self._model.is_alive(request.worker):
            await self._both(log, "LeaseLost", claimed)
            return
        best = self._model.claimable(request)
        limit = request.limit if request.flow_id is None else 1
        places = {flow.id: (-flow.priority, flow.ready) for flow in best}
        equal(
            "the places of the flows claimed",
            [places.get(one.flow.id) for one in claimed],
            list(places.values())[:limit],
        )
        for one in claimed:
            flow = self._model.flows.by_id[one.flow.id]
            equal("a lease", one.lease, self._model.take(request.worker, flow))
            equal("the history of a claim", plain(one.events), plain(flow.events))
            # By the log's ids: what one operation brought has no order of its own, see `align`.
            equal("the inbox of a claim", [m.id for m in one.inbox], sorted(m.id for m in flow.unread))
        await self._both(log, None, None)

    # -- looks -----------------------------------------------------------------------------------------------

    async def _look(self, log: ExecutionLog, **args: Any) -> None:
        worker, flows = self._prefix + args["worker"], self._model.flows.by_id
        ids = [self._prefix + id for id in FLOWS]
        owned = [(flow.id, flow.epoch) for flow in flows.values() if flow.owner == worker]
        claims = [(id, flows[id].first_epoch if id in flows else 1) for id in ids]
        expected = {
            id: flows[id].status if id in flows else None for id, one in claims if (id, one) not in owned
        }
        equal("what was lost", dict(await log.lost(worker, claims)), expected)
        _, arrived = await log.arrivals(worker, 0)
        unread = sorted(m.id for id, _ in owned for m in flows[id].unread)
        equal("arrivals", sorted(m.id for m in arrived), unread)
        ended, absent = await log.ended_or_parked(ids)
        settled = [id for id in ids if id in flows and (flows[id].ended or flows[id].status == "parked")]
        equal("those that ended or are parked", [one.id for one in ended], settled)
        equal("those that no flow has", absent, [id for id in ids if id not in flows])
        waits = any(flow.wake and flow.name[len(self._prefix) :] in args["names"] for flow in flows.values())
        wake = await log.next_wake([self._prefix + name for name in args["names"]])
        equal("whether anything wakes by time", wake is not None, waits)
        for id in ids:
            message = Message(id, "signal", "go", None, args["key"])
            equal(
                "a key", await log.has_key(message), self._model.flows.has_key(id, *message[1:3], message.key)
            )
        await self._list(log, args)

    async def _list(self, log: ExecutionLog, args: dict[str, Any]) -> None:
        where = FlowFilter(
            statuses=tuple(TaskStatus(one) for one in args["statuses"]),
            names=tuple(self._prefix + name for name in args["names"]),
            queue=args["queue"],
            version=args["version"],
            tags=args["tags"],
            parent_id=self._named(args["parent"]),
            id_prefix=self._prefix,
        )
        expected = [flow for flow in self._model.flows.by_id.values() if matches(flow, where)]
        expected.sort(key=lambda flow: -flow.number)
        listed, after = await log.list(where, limit=args["limit"])
        while after is not None and len(listed) <= len(expected):
            page, after = await log.list(where, limit=args["limit"], after=after)
            listed += page
        equal("a list", [flow.id for flow in listed], [flow.id for flow in expected])
        counts = {status: sum(flow.status is status for flow in expected) for status in TaskStatus}
        equal("counts", await log.count(where), {status: count for status, count in counts.items() if count})

    # -- inside ----------------------------------------------------------------------------------------------

    def _named(self, name: str | None) -> str | None:
        return None if name is None else self._prefix + name

    async def _both(self, log: ExecutionLog, expected: object, answer: object) -> None:
        """Compare answers, all flows, and the histories and inboxes of those that the model says have changed.

        Now and then, and in the end, all of these: a log may have changed what it should not.
        """
        equal("the answer", answer, expected)
        ids = [self._prefix + id for id in FLOWS]
        now = {id: repr(self._model.find(id)) for id in ids}
        changed = ids if self._look_at_all else [id for id in ids if now[id] != self._compared.get(id)]
        compare(self._model, await self._look_at(log, changed), self._prefix)
        self._compared = {id: repr(self._model.find(id)) for id in ids}

    async def _look_at(self, log: ExecutionLog, changed: Sequence[str]) -> Seen:
        ids = [self._prefix + id for id in FLOWS]
        flows, histories, inboxes = await asyncio.gather(
            asyncio.gather(*(log.find(id) for id in ids)),
            asyncio.gather(*(log.history(id) for id in changed)),
            asyncio.gather(*(log.inbox(id) for id in changed)),
        )
        return Seen(
            dict(zip(ids, flows, strict=True)),
            dict(zip(changed, histories, strict=True)),
            dict(zip(changed, inboxes, strict=True)),
        )

    async def _same_workers(self, log: ExecutionLog) -> None:
        found = {one.id: one.state for one in await log.workers() if one.id.startswith(self._prefix)}
        equal("the workers", found, self._model.workers)
