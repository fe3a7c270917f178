"""Deliberate bugs, planted in a child process: each must turn the harness red, or it could not find its like.

Each is a mistake that somebody could make in good faith. They are planted at the log's seam and in its SQL, which
move less than what is above them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any, Final

from ergon.core.commit import ClaimedFlow, ClaimRequest, Commit, Message, MessageKind
from ergon.core.history import EventKind
from ergon.executor import incarnation
from ergon.executor.alarm import Alarm
from ergon.replay.loop import FlowLoop
from ergon.storage import eager
from ergon.storage.sqlite import children, claims, journal, leases
from ergon.storage.sqlite.group import GroupCommit
from ergon.storage.sqlite.log import SqliteExecutionLog
from ergon.storage.sqlite.statements import Bulk

Done = Callable[["BaseException | None"], None]
BUGS: Final[dict[str, Callable[[], None]]] = {}
LATE_SECONDS: Final = 0.004


def plant(name: str) -> None:
    """Put one bug into this process."""
    BUGS[name]()


def bug(function: Callable[[], None]) -> Callable[[], None]:
    BUGS[function.__name__] = function
    return function


def put(owner: object, name: str, value: Any) -> None:
    """Replace a method, or a function of a module."""
    setattr(owner, name, value)


def change_submit(change: Callable[[Any, Any, Commit, Done], None]) -> None:
    """`change(log, submit, commit, done)` stands in for the log's `submit`."""
    submit = SqliteExecutionLog.submit
    put(SqliteExecutionLog, "submit", lambda log, commit, done: change(log, submit, commit, done))


# -- too early ---------------------------------------------------------------------------------------------


@bug
def result_delivered_before_durable() -> None:
    """The flow goes on with a result while its commit is still on its way."""
    change_submit(answer_first)


@bug
def start_not_durable_before_body() -> None:
    """The body of an at-most-once step begins while the note that it did is still on its way."""

    def change(log: Any, submit: Any, commit: Commit, done: Done) -> None:
        early = any(event.kind == EventKind.STEP_STARTED for event in commit.events)
        (answer_first if early else plainly)(log, submit, commit, done)

    change_submit(change)


def plainly(log: Any, submit: Any, commit: Commit, done: Done) -> None:
    submit(log, commit, done)


def answer_first(log: Any, submit: Any, commit: Commit, done: Done) -> None:
    loop = asyncio.get_running_loop()
    loop.call_later(LATE_SECONDS, submit, log, commit, lambda error: None)
    loop.call_soon(done, None)


@bug
def acknowledged_before_commit() -> None:
    """The group commit answers at once, and writes together with the next group."""
    apply = GroupCommit._apply
    waiting: list[Any] = []

    def late(self: GroupCommit, batch: Any) -> Any:
        if all(isinstance(what, Commit) and what.settled is None for what in batch):
            waiting.extend(batch)
            return None, None
        if not any(isinstance(what, Commit) for what in batch):
            return apply(self, batch)  # a renewal may come at any time
        both, before = [*waiting, *batch], len(waiting)
        waiting.clear()
        errors, hint = apply(self, both)
        return (errors[before:] if errors is not None else None), hint

    put(GroupCommit, "_apply", late)


@bug
def schedule_acknowledged_early() -> None:
    """`create` returns before the flow is written."""
    create = eager.create

    async def early(log: SqliteExecutionLog, flows: Any) -> Any:
        if await log.find(flows[0].id) is not None:
            return await create(log, flows)
        later = asyncio.get_running_loop().call_later
        later(LATE_SECONDS, lambda: asyncio.ensure_future(create(log, flows)))
        return [None] * len(flows)

    put(eager, "create", early)


@bug
def timers_fire_early() -> None:
    """A due time is rounded down."""
    take_due, due = FlowLoop.take_due, vars(Alarm)["due"].fget

    def rounded(self: Alarm) -> float | None:
        at: float | None = due(self)
        return None if at is None else at - 0.02

    put(FlowLoop, "take_due", lambda self, now: take_due(self, now + 0.02))
    put(Alarm, "due", property(rounded))


# -- not together ------------------------------------------------------------------------------------------


@bug
def signal_consumed_after_its_event() -> None:
    """A signal counts as consumed in a commit of its own, after the one with the event."""

    def change(log: Any, submit: Any, commit: Commit, done: Done) -> None:
        if commit.consumed and commit.settled is None:
            submit(log, commit._replace(consumed=()), done)
            later = Commit(commit.flow_id, commit.lease, (), commit.consumed)
            asyncio.get_running_loop().call_later(LATE_SECONDS, submit, log, later, lambda error: None)
        else:
            submit(log, commit, done)

    change_submit(change)


@bug
def signal_consumed_before_its_event() -> None:
    """The inbox forgets a message in a transaction of its own, before the one with the event."""
    apply = GroupCommit.apply

    def in_two(self: GroupCommit, batch: Any) -> Any:
        taken = [message for what in batch if isinstance(what, Commit) for message, _ in what.consumed]
        marks = ", ".join("?" * len(taken))
        if taken:
            self.connection.execute(f"UPDATE inbox SET consumed_seq = 0 WHERE id IN ({marks})", taken)
        return apply(self, [_unconsumed(what) for what in batch])

    put(GroupCommit, "apply", in_two)


def _unconsumed(what: Any) -> Any:
    return what._replace(consumed=()) if isinstance(what, Commit) else what


@bug
def child_with_a_random_id() -> None:
    """A child's id is not derived from its parent's operation, so a replay starts another child."""

    def change(log: Any, submit: Any, commit: Commit, done: Done) -> None:
        children = tuple(child._replace(id=f"{child.id}-{secrets.token_hex(4)}") for child in commit.children)
        submit(log, commit._replace(children=children), done)

    change_submit(change)


@bug
def stranger_cancelled() -> None:
    """A flow that stops waiting for a child cancels whatever flow has the child's id."""
    children._SQL["theirs"] = (
        "SELECT json_group_array(json_array(j.key, f.id)) FROM json_each(:cancels) AS j CROSS JOIN flows AS f "
        "ON f.id = json_extract(j.value, '$[0]')"
    )


# -- forgotten ---------------------------------------------------------------------------------------------


def change_claimed(change: Callable[[ClaimedFlow], ClaimedFlow]) -> None:
    """`change` is applied to every flow that is claimed."""
    claim = SqliteExecutionLog.claim

    async def changed(log: SqliteExecutionLog, request: ClaimRequest) -> list[ClaimedFlow]:
        return [change(claimed) for claimed in await claim(log, request)]

    put(SqliteExecutionLog, "claim", changed)


@bug
def attempts_forgotten() -> None:
    """After a crash a step's attempts are counted from the start."""

    def forget(claimed: ClaimedFlow) -> ClaimedFlow:
        events = [event for event in claimed.events if event.kind != EventKind.STEP_RETRIED]
        gone = len(claimed.events) - len(events)
        if gone and events == claimed.events[: len(events)]:
            events.append(claimed.events[-1]._replace(attempt=0))  # keeps the numbering
        return claimed._replace(events=events)

    change_claimed(forget)


@bug
def history_read_too_early() -> None:
    """A claim misses the last event, as if it had been read before the claim."""
    change_claimed(lambda claimed: claimed._replace(events=claimed.events[:-1]))


@bug
def flows_of_the_dead_forgotten() -> None:
    """The reaper declares workers dead and leaves them their flows."""
    leases._SQL["release_flows"] = (
        "UPDATE flows SET reason = reason WHERE 0 AND :workers AND :now AND :willingly"
    )


@bug
def cancel_forgotten() -> None:
    """A cancel is acknowledged and not kept."""
    change_sent(lambda message: None if message.kind == MessageKind.CANCEL else message)


@bug
def signal_key_ignored() -> None:
    """A repeated signal is another signal."""
    change_sent(lambda message: message._replace(key=None))


def change_sent(change: Callable[[Message], Message | None]) -> None:
    send = SqliteExecutionLog.send

    async def changed(log: SqliteExecutionLog, message: Message) -> None:
        kept = change(message)
        if kept is not None:
            await send(log, kept)

    put(SqliteExecutionLog, "send", changed)


@bug
def history_rewritten() -> None:
    """Somebody tidies old rows."""
    apply = GroupCommit.apply

    def tidy(self: GroupCommit, batch: Any) -> Any:
        self.connection.execute("UPDATE events SET at = at + 1 WHERE seq = 1")
        return apply(self, batch)

    put(GroupCommit, "apply", tidy)


# -- two workers -------------------------------------------------------------------------------------------


@bug
def no_fence() -> None:
    """A commit is written whoever owns the flow."""
    fence = "WHERE f.id = v.column1 AND f.owner = v.column2 AND f.epoch = v.column3"
    unfenced = "WHERE f.id = v.column1 AND coalesce(v.column2, v.column3, 1) IS NOT NULL"
    sql = journal._SQL["append_events"]
    assert fence in sql
    journal._EVENTS = Bulk(sql.replace(fence, unfenced), 12)  # type: ignore[misc]
    sql, fence = journal._SQL["settle"], fence.replace("f.", "flows.")
    assert fence in sql
    journal._SETTLE = Bulk(sql.replace(fence, unfenced.replace("f.", "flows.")), 9)  # type: ignore[misc]


@bug
def epoch_not_raised() -> None:
    """Two owners of a flow have the same epoch."""
    sql = claims._SQL["own"]
    assert "epoch = epoch + 1" in sql
    claims._SQL["own"] = sql.replace("epoch = epoch + 1", "epoch = 1")


@bug
def renewal_revives_the_dead() -> None:
    """A heartbeat that comes too late brings a dead incarnation back."""
    sql = leases._SQL["renew"]
    state = "AND state IN ('alive', 'draining')"
    assert state in sql
    leases._SQL["renew"] = sql.replace(state, "").replace("SET ", "SET state = 'alive', ")


@bug
def lost_lease_unspoken() -> None:
    """The worker comes back without a word."""
    incarnation.logger.disabled = True


@bug
def lease_taken_at_once() -> None:
    """Whoever looks declares every other worker dead."""
    suspects = leases._SQL["suspects"]
    leases._SQL["suspects"] = suspects.replace("lease_expires_boot <= :boot", "pid != " + str(_pid()))


def _pid() -> int:
    import os

    return os.getpid()
