"""`Scheduler`: start flows and manage them, from any process, with or without their code."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, overload

from ergon.core.checks import check_log, check_priority, check_timeout
from ergon.core.codec import MISSING, decoder_for, encode
from ergon.core.codec.objects import holds
from ergon.core.commit import FlowFilter, FlowRecord, NewFlow
from ergon.core.conflict import id_conflict
from ergon.core.history import Event
from ergon.core.ids import new_flow_id
from ergon.core.names import check_name, check_tags
from ergon.core.status import TaskStatus
from ergon.errors import NotInFlow, UsageError
from ergon.flows.context import current_machine
from ergon.flows.flow import BoundFlow, FlowCall
from ergon.flows.types import FlowObject, flow_call_of
from ergon.scheduler.handle import FlowHandle
from ergon.scheduler.results import results_of
from ergon.scheduler.times import start_at
from ergon.storage import eager
from ergon.storage.log import ExecutionLog

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    V_co = TypeVarWithDefault("V_co", bound=str | None, default=str | None, covariant=True)
else:
    V_co = TypeVar("V_co", covariant=True)

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleOptions:
    """What seldom needs saying when a flow is started; None: as the flow itself is declared."""

    queue: str | None = None
    priority: int | None = None
    """Higher is claimed first."""
    timeout: float | None = None
    """Seconds after its first start when it is cancelled."""

    def __post_init__(self) -> None:
        if self.queue is not None:
            check_name("queue", self.queue)
        if self.priority is not None:
            check_priority(self.priority)
        check_timeout(self.timeout)


_NOTHING_CHOSEN: Final = ScheduleOptions()


class Scheduler(Generic[V_co]):
    """Starts flows and looks after them.

        handle = await Scheduler(log).schedule(process.bind(order), id="order-1")
        receipt = await handle.result()

    A scheduler has one of three version states: `with_version("1.4")` stamps every flow it starts, so that only
    workers that run this version claim it; `from_env()` takes the version from DEPLOY_VERSION; `unversioned()`, the
    state of a new scheduler, stamps none.

    Type checkers tell them apart: `Scheduler[str]` stamps a version, `Scheduler[None]` none, and plain `Scheduler` is
    either. So a deploy script that takes a `Scheduler[str]` cannot be handed one that forgot its version.
    """

    @overload
    def __init__(self: Scheduler[None], log: ExecutionLog, *, version: None = None) -> None: ...
    @overload
    def __init__(self: Scheduler[str], log: ExecutionLog, *, version: str) -> None: ...
    @overload
    def __init__(self: Scheduler[str | None], log: ExecutionLog, *, version: str | None) -> None: ...
    def __init__(self: Scheduler[Any], log: ExecutionLog, *, version: str | None = None) -> None:
        """Raises `UsageError` where `log` is a path or a URL."""
        check_log(log)
        self._log = log
        self._version: V_co = check_name("version", version) if version is not None else None

    # -- versions --------------------------------------------------------------------------------------

    @property
    def version(self) -> V_co:
        """The version stamped on flows, or None."""
        return self._version

    def with_version(self, version: str) -> Scheduler[str]:
        """A scheduler that stamps `version` on the flows it starts."""
        made: Scheduler[str] = self._as(version)
        return made

    def from_env(self, variable: str = "DEPLOY_VERSION") -> Scheduler[str]:
        """A scheduler whose version is the value of an environment variable. Raises `UsageError` when unset."""
        version = os.environ.get(variable)
        if not version:
            raise UsageError(f"{variable} is not set; set it to the deployed version, or use unversioned()")
        return self.with_version(version)

    def unversioned(self) -> Scheduler[None]:
        """A scheduler that stamps no version: any worker with the code runs its flows."""
        made: Scheduler[None] = self._as(None)
        return made

    def _as(self, version: str | None) -> Any:
        return type(self)(self._log, version=version)

    # -- starting --------------------------------------------------------------------------------------

    @overload
    async def schedule(
        self,
        flow: FlowCall[R] | BoundFlow[[], R],
        *,
        id: str | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        tags: Sequence[str] | None = None,
        options: ScheduleOptions | None = None,
    ) -> FlowHandle[R]: ...
    @overload
    async def schedule(
        self,
        flow: FlowObject,
        *,
        id: str | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        tags: Sequence[str] | None = None,
        options: ScheduleOptions | None = None,
    ) -> FlowHandle[Any]: ...
    async def schedule(
        self,
        flow: Any,
        *,
        id: str | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        tags: Sequence[str] | None = None,
        options: ScheduleOptions | None = None,
    ) -> FlowHandle[Any]:
        """Start a flow. When this returns, it exists, once, and will reach an end.

        flow: `my_flow.bind(...)`, or an object of a `@flow_type` class.
        id: the flow's id and idempotency key: the same id with the same input returns the same flow. An argument that
            is left to its default fits whatever value the flow was started with. Default: a new UUID, ordered by time.
        delay: seconds to wait before it may start. at: or the time, with a time zone.
        tags: what a worker must have to take it, all of them. Default: as the flow is declared; `()`: none.

        Raises `FlowIdConflict` when the id belongs to a flow with another name or input, `EncodingError`,
        `ArgumentsMismatch`, `InvalidName`, `UsageError`.
        """
        _check_outside()
        call = flow_call_of(flow)
        if id is not None:
            check_name("flow id", id)
        new = self._new(call, id, delay, start_at(at, delay), tags, options)
        (existing,) = await eager.create(self._log, [new])
        return self._handle(call, new, existing)

    @overload
    async def schedule_all(
        self,
        flows: Iterable[FlowCall[R] | BoundFlow[[], R]],
        *,
        ids: Iterable[str] | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        tags: Sequence[str] | None = None,
        options: ScheduleOptions | None = None,
    ) -> list[FlowHandle[R]]: ...
    @overload
    async def schedule_all(
        self,
        flows: Iterable[FlowObject],
        *,
        ids: Iterable[str] | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        tags: Sequence[str] | None = None,
        options: ScheduleOptions | None = None,
    ) -> list[FlowHandle[Any]]: ...
    async def schedule_all(
        self,
        flows: Iterable[Any],
        *,
        ids: Iterable[str] | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        tags: Sequence[str] | None = None,
        options: ScheduleOptions | None = None,
    ) -> list[FlowHandle[Any]]:
        """Start many flows at once; the handles are in the order of `flows`. For less than `schedule` for each of them.

            handles = await scheduler.schedule_all([process.bind(order) for order in orders])
            receipts = await scheduler.results(handles)

        ids: an id for each, in the same order, all different. The rest is as for `schedule`, and the same for all.

        Each flow is created for itself. When this raises what `schedule` raises, or the log's error, some may exist;
        with ids of your own the same call can be repeated.
        """
        _check_outside()
        calls = [flow_call_of(flow) for flow in flows]
        named = _as_many(ids, len(calls))
        begins = start_at(at, delay)
        if tags is not None:
            tags = check_tags("flow tag", tags)
        news = [
            self._new(call, id, delay, begins, tags, options) for call, id in zip(calls, named, strict=True)
        ]
        existing = await eager.create(self._log, news)
        return [self._handle(*each) for each in zip(calls, news, existing, strict=True)]

    async def schedule_named(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        id: str | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        tags: Sequence[str] | None = None,
        options: ScheduleOptions | None = None,
    ) -> FlowHandle[Any]:
        """Start a flow by its name, from a program that does not have its code.

        arguments: by parameter name, as plain values (`self` for a `@flow_type` object's fields).

        What the flow's code declares is not known here. Its timeout counts all the same: the worker that first claims
        the flow knows it. Queue, tags and priority decide which worker that is, so name in `tags` and `options` those
        that differ from queue "default", no tags and priority 0; `why` tells when no live worker takes such a flow.
        Parameters left out have the defaults of the code that runs.
        """
        _check_outside()
        chosen = options if options is not None else _NOTHING_CHOSEN
        new = NewFlow(
            id=check_name("flow id", id) if id is not None else new_flow_id(self._log.now()),
            name=check_name("flow name", name),
            input=encode(dict(arguments)),
            queue=chosen.queue if chosen.queue is not None else "default",
            version=self._version,
            tags=check_tags("flow tag", tags) if tags is not None else (),
            priority=chosen.priority or 0,
            timeout_seconds=chosen.timeout,
            start_at=start_at(at, delay),
            delay_seconds=delay,
        )
        existing = await self._log.create(new)
        if existing is not None and (existing.name != new.name or not holds(existing.input, new.input)):
            raise id_conflict(existing, new)
        return FlowHandle(self._log, new.id, decoder_for(MISSING))

    def _new(  # noqa: PLR0917  # made for every flow
        self,
        call: FlowCall[Any],
        id: str | None,
        delay: float | None,
        begins: float | None,
        tags: Sequence[str] | None,
        options: ScheduleOptions | None,
    ) -> NewFlow:
        declared, chosen = call.flow.options, options if options is not None else _NOTHING_CHOSEN
        return NewFlow(
            id if id is not None else new_flow_id(self._log.now()),
            call.flow.name,
            call.input,
            chosen.queue if chosen.queue is not None else declared.queue,
            self._version,
            chosen.priority if chosen.priority is not None else declared.priority,
            begins,
            delay,
            chosen.timeout if chosen.timeout is not None else declared.timeout,
            tags=check_tags("flow tag", tags) if tags is not None else declared.tags,
        )

    def _handle(self, call: FlowCall[R], new: NewFlow, existing: FlowRecord | None) -> FlowHandle[R]:
        if existing is not None and (existing.name != new.name or not call.fits(existing.input)):
            raise id_conflict(existing, new)
        return FlowHandle(self._log, new.id, call.flow.result_decoder)

    # -- looking ---------------------------------------------------------------------------------------

    def handle(self, flow_id: str, result_type: Any = MISSING) -> FlowHandle[Any]:
        """A flow by its id. `result_type` decodes its result; default: plain JSON."""
        return FlowHandle(self._log, check_name("flow id", flow_id), decoder_for(result_type))

    @overload
    async def results(
        self,
        handles: Iterable[FlowHandle[R]],
        timeout: float | None = None,  # noqa: ASYNC109 - the usual word for it
        *,
        return_exceptions: Literal[False] = False,
    ) -> list[R]: ...
    @overload
    async def results(
        self,
        handles: Iterable[FlowHandle[R]],
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        *,
        return_exceptions: bool,
    ) -> list[R | Exception]: ...
    async def results(
        self,
        handles: Iterable[FlowHandle[R]],
        timeout: float | None = None,  # noqa: ASYNC109 - as for one handle
        *,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """Wait for the results of many flows, for at most `timeout` seconds; they are in the order of `handles`.

        For less than `handle.result()` for each of them. When flows failed, this raises what the first of them in the
        order of `handles` raised, once those before it have ended; the others go on.
        return_exceptions: put what a flow raised in the place of its result, and wait for all. What the log raises,
        such as that it is closed, is raised all the same: it says nothing of the flows.
        """
        return await results_of(handles, timeout, return_exceptions=return_exceptions)

    async def list(
        self, where: FlowFilter | None = None, *, limit: int = 100, after: str | None = None
    ) -> tuple[list[FlowRecord], str | None]:
        """Flows, newest first, and the key of the next page (None: no more)."""
        return await self._log.list(where if where is not None else FlowFilter(), limit=limit, after=after)

    async def count(self, where: FlowFilter | None = None) -> dict[TaskStatus, int]:
        """How many flows there are of each status."""
        return await self._log.count(where if where is not None else FlowFilter())

    async def history(self, flow_id: str) -> Sequence[Event]:
        """All events of a flow, in order."""
        return await self._log.history(flow_id)

    async def delete(self, flow_id: str) -> bool:
        """Remove an ended flow with its history and children. False when there is none; `IllegalMove` if it runs."""
        return await self._log.delete(flow_id)


def _check_outside() -> None:
    if current_machine() is not None:
        raise NotInFlow(
            "a Scheduler cannot be used inside a flow: use invoke(child), or put the call in a step."
        )


def _as_many(ids: Iterable[str] | None, count: int) -> Sequence[str | None]:
    """An id for each of so many flows."""
    if ids is None:
        return [None] * count
    if isinstance(ids, str):
        raise UsageError(f"ids={ids!r}: give an id for each flow, such as a list of them")
    given = [check_name("flow id", id) for id in ids]
    if len(given) != count:
        raise UsageError(f"{len(given)} ids for {count} flows: give one for each, or none at all")
    if len(set(given)) != count:
        raise UsageError("two flows were given the same id, which would be one flow: make the ids differ")
    return given
