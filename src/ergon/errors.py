"""Every error Ergon raises, in one tree.

    ErgonError
    ├── UsageError                  the caller's code asks for something that cannot be
    │   ├── NotInFlow               a durable operation outside a flow
    │   ├── NotAllowedInFlow        sockets, threads, subprocesses inside a flow: put them in a step
    │   ├── ArgumentsMismatch       a flow or step called with arguments its signature refuses
    │   ├── StepMutatedArguments    a step body changed an object that its flow handed to it
    │   ├── DuplicateRegistration   two functions under one name
    │   ├── InvalidName             a flow id or name outside the allowed characters or length
    │   ├── DagError                a cycle, or a dependency that does not exist
    │   └── ForkedConnection        a log carried through fork()
    ├── EncodingError               a value that cannot be written as JSON, with the path to it
    │   └── DecodingError           a stored value that does not fit the type asked for
    ├── FlowError                   how a flow or a step ended, seen by whoever awaits it
    │   ├── FlowCancelled           the flow was cancelled
    │   ├── FlowParked              the flow needs a person or a deploy
    │   ├── StepFailed              an error whose class is not imported here
    │   ├── StepTimeout             one attempt of a step took longer than allowed
    │   ├── StepCancelled           a step body cancelled itself
    │   └── StepInterrupted         an at-most-once step was interrupted; it will not run again
    ├── NonDeterminismError         the replayed flow asked for something other than its history holds
    └── StoreError                  the execution log
        ├── FlowNotFound            no flow has this id
        ├── FlowIdConflict          the id is taken by a flow with another name or input
        ├── IllegalMove             the flow's status does not allow this
        ├── LeaseLost               another worker owns the flow now; nothing was written
        ├── LogBusy                 the log could not be written to within the time allowed
        ├── LogFull                 no room on the disk; nothing acknowledged was lost
        ├── LogDamaged              the file, or the rows of one flow, are not what Ergon wrote
        ├── LogTooNew               written by a newer version of Ergon
        ├── LogRefused              a place or setting that cannot be safe
        └── LogClosed               the log was closed, or never connected

An error's docstring says what it means and what to do; its message adds the facts.
"""

from __future__ import annotations

from typing import Any, Final


class ErgonError(Exception):
    """Base of all errors raised by Ergon."""


class UsageError(ErgonError):
    """The calling code asks for something that cannot be; fix the code."""


class NotInFlow(UsageError, RuntimeError):
    """A durable operation was called where no flow is running."""


class NotAllowedInFlow(UsageError, RuntimeError):
    """The flow tried to reach outside (socket, thread, subprocess). Do it in a step, whose result is recorded."""


class ArgumentsMismatch(UsageError, TypeError):
    """A flow or step was called with arguments its signature refuses."""


class StepMutatedArguments(UsageError, TypeError):
    """A step body changed an object of its flow: `self`, or an argument.

    A replay does not run the body, so the flow would not see the change again. Return the new value and assign it in
    the flow.
    """


class DuplicateRegistration(UsageError, ValueError):
    """Two different functions claim one name, so a stored flow could resume in the wrong one."""


class InvalidName(UsageError, ValueError):
    """A flow id, flow name or signal name has characters or a length that no log can keep."""


class DagError(UsageError, ValueError):
    """A DAG has a cycle or names a dependency that does not exist."""


class ForkedConnection(UsageError, RuntimeError):
    """An open log was carried through fork(). Open the log in the child process instead."""


class EncodingError(ErgonError, ValueError):
    """A value cannot be written to the log. `path` is where in the value, such as `$.items[3].price`.

    Only declared names stand in it. A key of a dict, which may itself be a secret, is given by its place:
    `$.prices[key 2]` is the third.
    """

    def __init__(self, message: str, *, path: str = "$") -> None:
        self.path = path
        super().__init__(message)


class DecodingError(EncodingError):
    """A stored value does not fit the type the code asks for, usually after the type changed."""


class FlowError(ErgonError):
    """How a flow or a step ended, seen by whoever awaits it."""


class FlowCancelled(FlowError):
    """The flow was cancelled before it returned."""

    def __init__(self, flow_id: str, reason: str = "") -> None:
        self.flow_id = flow_id
        super().__init__(f"flow {flow_id!r} was cancelled" + (f": {reason}" if reason else ""))


class FlowParked(FlowError):
    """The flow stopped without failing: it needs a person or a deploy. `resume` lets it go on."""

    def __init__(self, flow_id: str, reason: str) -> None:
        self.flow_id, self.reason = flow_id, reason
        advice = "" if "resume" in reason else ". Mend the cause, then resume it"
        super().__init__(f"flow {flow_id!r} is parked: {reason}{advice}")


class StepFailed(FlowError):
    """A recorded error whose class is not imported in this process. `type_name` names it."""

    def __init__(self, type_name: str, message: str) -> None:
        self.type_name, self.message = type_name, message
        super().__init__(f"{type_name}: {message}" if message else type_name)

    def __reduce__(self) -> tuple[Any, ...]:  # it may cross from a process of the pool
        return type(self), (self.type_name, self.message)


class StepTimeout(FlowError, TimeoutError):
    """One attempt of a step took longer than its `timeout`. The attempt was cancelled."""


class StepCancelled(FlowError):
    """A step body raised CancelledError although nobody cancelled it."""


class StepInterrupted(FlowError):
    """An at-most-once step started but its end was never recorded. Whether its effect happened is unknown."""


class NonDeterminismError(ErgonError):
    """The flow's code asked for something other than its history holds.

    The flow is parked, not failed: deploy code that matches (or guard the change with `patched`), then resume it.
    """

    def __init__(self, *, expected: str, actual: str, seq: int | None = None, advice: str = "") -> None:
        """`advice`: whole sentences on this very difference; what holds for every one follows."""
        self.expected, self.actual, self.seq = expected, actual, seq
        place = f" at history event {seq}" if seq is not None else ""
        super().__init__(
            f"the flow's code no longer matches its history{place}\n"
            f"  history has: {expected}\n"
            f"  code asks:   {actual}\n"
            + (f"{advice}\n" if advice else "")
            + "Restore the order of these operations, or guard the change with `patched(id)`, then resume the flow.\n"
            "If nobody changed the code, it depends on chance, time or the order of a set: use `ergon.random()` and "
            "`ergon.now()`, and sort what has no order of its own."
        )


class StoreError(ErgonError):
    """The execution log refused or failed."""


class FlowNotFound(StoreError, LookupError):
    """No flow in this log has the id."""

    def __init__(self, flow_id: str) -> None:
        self.flow_id = flow_id
        super().__init__(
            f"no flow with id {flow_id!r} in this log; check the id, and that this is the log it was started in"
        )


class FlowIdConflict(StoreError, ValueError):
    """The id is taken by a flow with another name or input. Choose another id, or repeat the same call."""


class IllegalMove(StoreError, ValueError):
    """The flow's present status does not allow this action. `status` is that status where the log told it."""

    def __init__(self, message: str, *, status: str = "") -> None:
        self.status = status
        super().__init__(message)


class LeaseLost(StoreError):
    """This worker owns the flow no more, or is not alive in the log. Nothing was written; let it propagate.

    `status`: how the flow stands where nobody owns it, such as `paused`; `GONE` where it is not there, `CLAIMED_AGAIN`
    where the lease's own worker has claimed it anew, and empty where another has.
    `why`: the message for whoever knows which flow it is about.
    """

    GONE: Final = "gone"
    CLAIMED_AGAIN: Final = "claimed again"

    def __init__(self, message: str, *, status: str = "", why: str = "") -> None:
        self.status, self.why = status, why or message
        super().__init__(message)

    @classmethod
    def of_flow(cls, flow_id: str, why: str, *, status: str = "") -> LeaseLost:
        """The error of one flow; `why` goes on from its name."""
        return cls(f"flow {flow_id!r} {why}", status=status, why=why)


class LogBusy(StoreError, TimeoutError):
    """Another process held the log's write lock for longer than the busy timeout, or memory ran out.

    Nothing was written: try again.
    """


class LogFull(StoreError):
    """The disk is full. Nothing acknowledged was lost; flows go on when there is room."""


class LogDamaged(StoreError):
    """The log holds what Ergon did not write. Restore a backup.

    `flow_id` names the flow when only rows of one flow are damaged: the others go on, and it goes on once they are
    mended. None: the file is not a healthy Ergon database.
    """

    def __init__(self, message: str, *, flow_id: str | None = None) -> None:
        self.flow_id = flow_id
        super().__init__(message)


class LogTooNew(StoreError):
    """The log was written by a newer version of Ergon. Upgrade this process."""


class LogRefused(StoreError):
    """The log's place or settings cannot keep the promises asked for."""


class LogClosed(StoreError, RuntimeError):
    """The log was closed, or never connected."""
