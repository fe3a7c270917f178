"""Ergon: durable execution for Python. Ordinary `async` functions whose work survives crashes, deploys and waiting.

Names are imported on first use, so that `import ergon` is quick and loads no driver that is not used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

from ergon.core.release import VERSION

if TYPE_CHECKING:
    from ergon.core.commit import Durability, FlowFilter, FlowRecord
    from ergon.core.graph import Dag
    from ergon.core.retry import RetryableError, RetryPolicy
    from ergon.core.status import TaskStatus
    from ergon.errors import (
        ArgumentsMismatch,
        DagError,
        DecodingError,
        DuplicateRegistration,
        EncodingError,
        ErgonError,
        FlowCancelled,
        FlowError,
        FlowIdConflict,
        FlowNotFound,
        FlowParked,
        ForkedConnection,
        IllegalMove,
        InvalidName,
        LeaseLost,
        LogBusy,
        LogClosed,
        LogDamaged,
        LogFull,
        LogRefused,
        LogTooNew,
        NonDeterminismError,
        NotAllowedInFlow,
        NotInFlow,
        StepCancelled,
        StepFailed,
        StepInterrupted,
        StepMutatedArguments,
        StepTimeout,
        StoreError,
        UsageError,
    )
    from ergon.executor.executor import Executor
    from ergon.executor.outcome import Completed, Outcome, Suspended
    from ergon.flows.children import ChildHandle, invoke
    from ergon.flows.dag import DagBuilder, dag, graph_of
    from ergon.flows.flow import Flow, FlowCall, flow
    from ergon.flows.stable import (
        attempt,
        deprecate_patch,
        flow_id,
        get_logger,
        idempotency_key,
        is_replaying,
        now,
        patched,
        rng,
        uuid4,
    )
    from ergon.flows.stable import (
        random as random,
    )
    from ergon.flows.steps import DID_NOT_HAPPEN, Happened, Step, run_step, step
    from ergon.flows.types import FlowType, flow_type
    from ergon.flows.waits import await_external_signal, schedule_timer, schedule_timer_named, wait_signal
    from ergon.opening import list_namespaces, open_log
    from ergon.scheduler.handle import FlowHandle
    from ergon.scheduler.scheduler import ScheduleOptions, Scheduler
    from ergon.storage.log import ExecutionLog
    from ergon.storage.postgres import PostgresExecutionLog
    from ergon.storage.redis import RedisExecutionLog
    from ergon.storage.sqlite import InMemoryExecutionLog, SqliteExecutionLog
    from ergon.worker.sources import IncomingSignal, SignalSource
    from ergon.worker.stopping import wait_told_to_stop
    from ergon.worker.worker import Worker, WorkerHandle, WorkerOptions

_PLACES = {
    "ergon.core.commit": "Durability FlowFilter FlowRecord",
    "ergon.core.graph": "Dag",
    "ergon.core.retry": "RetryPolicy RetryableError",
    "ergon.core.status": "TaskStatus",
    "ergon.errors": (
        "ArgumentsMismatch DagError DecodingError DuplicateRegistration EncodingError ErgonError FlowCancelled "
        "FlowError FlowIdConflict FlowNotFound FlowParked ForkedConnection IllegalMove "
        "InvalidName LeaseLost LogBusy LogClosed LogDamaged LogFull LogRefused LogTooNew NonDeterminismError "
        "NotAllowedInFlow NotInFlow StepCancelled StepFailed StepInterrupted StepMutatedArguments StepTimeout "
        "StoreError UsageError"
    ),
    "ergon.executor.executor": "Executor",
    "ergon.executor.outcome": "Completed Outcome Suspended",
    "ergon.flows.children": "ChildHandle invoke",
    "ergon.flows.dag": "DagBuilder dag graph_of",
    "ergon.flows.flow": "Flow FlowCall flow",
    "ergon.flows.stable": (
        "attempt deprecate_patch flow_id get_logger idempotency_key is_replaying now patched random rng uuid4"
    ),
    "ergon.flows.steps": "DID_NOT_HAPPEN Happened Step run_step step",
    "ergon.flows.types": "FlowType flow_type",
    "ergon.flows.waits": "await_external_signal schedule_timer schedule_timer_named wait_signal",
    "ergon.opening": "list_namespaces open_log",
    "ergon.scheduler.handle": "FlowHandle",
    "ergon.scheduler.scheduler": "ScheduleOptions Scheduler",
    "ergon.storage.log": "ExecutionLog",
    "ergon.storage.postgres": "PostgresExecutionLog",
    "ergon.storage.redis": "RedisExecutionLog",
    "ergon.storage.sqlite": "InMemoryExecutionLog SqliteExecutionLog",
    "ergon.worker.stopping": "wait_told_to_stop",
    "ergon.worker.sources": "IncomingSignal SignalSource",
    "ergon.worker.worker": "Worker WorkerHandle WorkerOptions",
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names.split()}

__version__ = VERSION
# Without `random`: `from ergon import *` must not put it in the place of the standard module, which a program may use.
__all__ = [
    "DID_NOT_HAPPEN",
    "ArgumentsMismatch",
    "ChildHandle",
    "Completed",
    "Dag",
    "DagBuilder",
    "DagError",
    "DecodingError",
    "DuplicateRegistration",
    "Durability",
    "EncodingError",
    "ErgonError",
    "ExecutionLog",
    "Executor",
    "Flow",
    "FlowCall",
    "FlowCancelled",
    "FlowError",
    "FlowFilter",
    "FlowHandle",
    "FlowIdConflict",
    "FlowNotFound",
    "FlowParked",
    "FlowRecord",
    "FlowType",
    "ForkedConnection",
    "Happened",
    "IllegalMove",
    "InMemoryExecutionLog",
    "IncomingSignal",
    "InvalidName",
    "LeaseLost",
    "LogBusy",
    "LogClosed",
    "LogDamaged",
    "LogFull",
    "LogRefused",
    "LogTooNew",
    "NonDeterminismError",
    "NotAllowedInFlow",
    "NotInFlow",
    "Outcome",
    "PostgresExecutionLog",
    "RedisExecutionLog",
    "RetryPolicy",
    "RetryableError",
    "ScheduleOptions",
    "Scheduler",
    "SignalSource",
    "SqliteExecutionLog",
    "Step",
    "StepCancelled",
    "StepFailed",
    "StepInterrupted",
    "StepMutatedArguments",
    "StepTimeout",
    "StoreError",
    "Suspended",
    "TaskStatus",
    "UsageError",
    "Worker",
    "WorkerHandle",
    "WorkerOptions",
    "attempt",
    "await_external_signal",
    "dag",
    "deprecate_patch",
    "flow",
    "flow_id",
    "flow_type",
    "get_logger",
    "graph_of",
    "idempotency_key",
    "invoke",
    "is_replaying",
    "list_namespaces",
    "now",
    "open_log",
    "patched",
    "rng",
    "run_step",
    "schedule_timer",
    "schedule_timer_named",
    "step",
    "uuid4",
    "wait_signal",
    "wait_told_to_stop",
]

_DRIVERS = {"PostgresExecutionLog": "asyncpg", "RedisExecutionLog": "redis"}
# Whoever asks for one of these by name is told what to install; whoever asks for all names means those that are there.
_UNUSABLE = {name for name, driver in _DRIVERS.items() if PathFinder.find_spec(driver) is None}
for _name in _UNUSABLE:
    __all__.remove(_name)  # pyright: ignore[reportUnsupportedDunderAll]  # noqa: PYI056 - for checkers all are there


def __getattr__(name: str) -> Any:
    # Submodules and public names never collide but for `flow`: importing the package `ergon.flows` sets the attribute.
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'ergon' has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF} - _UNUSABLE)
