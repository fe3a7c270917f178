"""What goes wrong says what is wrong, where, and what to do."""

from __future__ import annotations

import asyncio
import gc
import os
import runpy
import sqlite3
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ergon import (
    ArgumentsMismatch,
    DuplicateRegistration,
    EncodingError,
    ExecutionLog,
    FlowNotFound,
    ForkedConnection,
    InMemoryExecutionLog,
    LogClosed,
    LogTooNew,
    NotInFlow,
    RetryPolicy,
    Scheduler,
    SqliteExecutionLog,
    StepFailed,
    UsageError,
    Worker,
    flow,
    flow_type,
    invoke,
    step,
    wait_signal,
)
from tests.stories.helpers import start, until_status, worker


@flow
async def job(amount: int = 1) -> int:
    return amount


class Opaque:
    pass


@dataclass
class Item:
    price: Any


@dataclass
class Cart:
    items: list[Item]


# -- values ----------------------------------------------------------------------------------------------------


async def test_a_result_that_cannot_be_written_fails_its_step_with_the_path_and_is_not_retried(
    log: ExecutionLog,
) -> None:
    count = 0

    @step(retry=RetryPolicy.STANDARD)
    async def load() -> Cart:
        nonlocal count
        count += 1
        return Cart([Item(1), Item(Opaque())])

    @flow
    async def shop() -> None:
        await load()

    async with worker(log, shop):
        with pytest.raises(
            EncodingError, match=r"result of step `.*load` cannot be stored: \$\.items\[1\]\.price"
        ) as caught:
            await (await start(log, shop.bind())).result(10)

    assert caught.value.path == "$.items[1].price"
    assert count == 1, "the same call would fail the same way"


async def test_a_flows_own_result_that_cannot_be_written_fails_the_flow(log: ExecutionLog) -> None:
    @flow
    async def shop() -> Any:
        return [1, Opaque()]

    async with worker(log, shop):
        with pytest.raises(EncodingError, match=r"flow `shop` cannot be stored.*\$\[1\]"):
            await (await start(log, shop.bind())).result(10)


async def test_an_input_that_cannot_be_written_is_refused_before_anything_starts(log: ExecutionLog) -> None:
    @flow
    async def shop(cart: Any) -> None: ...

    with pytest.raises(EncodingError, match=r"\$\.cart"):
        await start(log, shop.bind(Opaque()))

    assert await log.find("f") is None


async def test_an_error_whose_class_is_not_imported_comes_back_with_its_name_and_message(
    log: ExecutionLog,
) -> None:
    class Local(Exception):
        pass

    @step
    async def fails() -> None:
        raise Local("hidden in a function")

    @flow
    async def job() -> None:
        await fails()

    async with worker(log, job):
        with pytest.raises(StepFailed, match="Local: hidden in a function"):
            await (await start(log, job.bind())).result(10)


# -- calls -----------------------------------------------------------------------------------------------------


def test_wrong_arguments_of_a_flow_are_found_when_it_is_bound() -> None:
    with pytest.raises(ArgumentsMismatch, match="job"):
        job.bind(1, 2)  # type: ignore[call-arg]
    with pytest.raises(ArgumentsMismatch, match="amuont"):
        job.bind(amuont=1)  # type: ignore[call-arg]


@flow
async def many(one: int, items: list[Item], *rest: float, flag: bool = True, **more: str) -> None:
    """Never started."""


def test_arguments_that_do_not_fit_their_declared_types_are_told_by_name_when_a_flow_is_bound() -> None:
    """Its worker could not read them: the flow would be parked."""
    item = Item(price=1)
    calls: list[tuple[str, Any]] = [
        ("`amount`.*expected `int`, got `str`", lambda: job.bind("1")),  # type: ignore[arg-type]
        ("`amount`.*expected `int`, got `null`", lambda: job.bind(amount=None)),  # type: ignore[arg-type]
        (r"`items\[1\]`.*expected `object`", lambda: many.bind(1, [item, 7])),  # type: ignore[list-item]
        (r"`rest\[0\]`.*expected `float`", lambda: many.bind(1, [], "x")),  # type: ignore[arg-type]
        ("`flag`.*expected `bool`", lambda: many.bind(1, [], flag="no")),  # type: ignore[arg-type]
    ]
    for said, bind in calls:
        with pytest.raises(ArgumentsMismatch, match=said):
            bind()

    many.bind(1, [item], 0.5, 1, flag=False, word="x")


async def test_a_flow_is_not_called_like_a_function(log: ExecutionLog) -> None:
    with pytest.raises(NotInFlow, match=r"job\.bind"):
        await job(1)
    with pytest.raises(UsageError, match="bind"):
        await Scheduler(log).schedule(job)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="@flow_type"):
        await Scheduler(log).schedule("job")  # type: ignore[call-overload]


def test_decorators_refuse_what_they_cannot_make_durable() -> None:
    with pytest.raises(UsageError, match="async def"):

        @flow  # type: ignore[arg-type]
        def plain() -> None: ...

    async def parts() -> Any:
        yield 1

    decorate: Any
    for decorate in (flow, step):
        with pytest.raises(UsageError, match=r"`parts` has a `yield`.*Return a list"):
            decorate(parts)
        with pytest.raises(UsageError, match="function, not 5"):
            decorate(5)
    with pytest.raises(UsageError, match="@flow_type is for classes"):
        flow_type(parts)  # type: ignore[type-var]

    with pytest.raises(UsageError, match="no method decorated with @flow"):

        @flow_type
        class Nothing:
            pass

    with pytest.raises(UsageError, match="name of its own"):
        step(lambda: None)
    with pytest.raises(UsageError, match="timeout"):
        flow(timeout=-1)


def test_a_flow_type_whose_objects_cannot_be_stored_is_refused_where_it_is_decorated() -> None:
    with pytest.raises(UsageError, match=r"`ByHand` declares no fields.*Make it a dataclass"):

        @flow_type
        class ByHand:
            def __init__(self, order: str) -> None:
                self.order = order

            @flow
            async def run(self) -> None: ...


def test_a_flow_type_may_annotate_with_what_exists_for_type_checkers_only(tmp_path: Path) -> None:
    """From Python 3.14 on, annotations are computed when somebody asks for them, and these cannot be."""
    program = tmp_path / "lazy.py"
    later = "" if sys.version_info >= (3, 14) else "from __future__ import annotations\n"
    program.write_text(later + LAZY)

    runpy.run_path(str(program))


LAZY = """
from typing import TYPE_CHECKING

from ergon import flow, flow_type

if TYPE_CHECKING:
    from shop import Order

@flow_type
class Lazy:
    order: Order

    def __init__(self) -> None: ...

    @flow
    async def run(self) -> None: ...
"""


async def test_a_flow_type_without_fields_is_refused_by_the_worker_unless_it_became_a_dataclass(
    log: ExecutionLog,
) -> None:
    """@dataclass may stand above @flow_type, which then cannot know of it yet."""

    @dataclass
    @flow_type
    class Sound:
        @flow
        async def run(self) -> str:
            return "ran"

    @flow_type
    class Bare:
        @flow
        async def run(self) -> None: ...

    async with worker(log, Sound):
        assert await (await start(log, Sound())).result(timeout=10) == "ran"
    with pytest.raises(UsageError, match=r"`Bare` declares no fields"):
        worker(log, Bare)
    with pytest.raises(EncodingError, match=r"Bare has no JSON form; use a dataclass"):
        await start(log, Bare(), "bare")


async def test_what_has_no_json_form_is_told_without_saying_return_where_nothing_is_returned(
    log: ExecutionLog,
) -> None:
    handle = await start(log, job.bind())

    with pytest.raises(EncodingError, match=r"Opaque has no JSON form; use a dataclass, or the plain data"):
        await handle.signal("go", Opaque())


async def test_a_flow_that_is_not_there_is_told_with_what_to_check(log: ExecutionLog) -> None:
    with pytest.raises(
        FlowNotFound, match=r"no flow with id 'nobody' in this log; check the id, and that this is"
    ):
        await Scheduler(log).handle("nobody").status()


def test_two_flows_of_one_name_cannot_be_registered_together(path: Path) -> None:
    @flow(name="job")
    async def another() -> None: ...

    log = SqliteExecutionLog(path)

    Worker(log, flows=[job, job])
    with pytest.raises(DuplicateRegistration, match=r"test_mistakes\.py:\d+ and .*test_mistakes\.py:\d+"):
        Worker(log, flows=[job, another])
    with pytest.raises(UsageError, match="neither"):
        Worker(log, flows=[print])  # type: ignore[list-item]


async def test_a_worker_takes_several_queues_and_flows_and_says_so(log: ExecutionLog) -> None:
    some: Any
    for some in (job, Item, 7):
        with pytest.raises(UsageError, match=r"flows=.*: give several"):
            Worker(log, flows=some)
    for some in ("default", ()):
        with pytest.raises(UsageError, match=r"queues=.*: give "):
            Worker(log, flows=[job], queues=some)


class OddPolicy(RetryPolicy):
    """Its delay cannot be told."""

    def delay_after(self, attempt: int) -> float:
        return 1 / (attempt - attempt)


@step(retry=OddPolicy(jitter=0.5))
async def fail_oddly(waits: bool) -> None:
    if waits:
        await asyncio.sleep(0)
    raise ValueError("no")


@flow
async def meet_odd_policy(waits: bool) -> None:
    await fail_oddly(waits)


@pytest.mark.parametrize("waits", [False, True])
async def test_a_failure_that_cannot_be_judged_parks_the_flow_and_says_why(
    log: ExecutionLog, waits: bool
) -> None:
    """Its step would stay open for ever."""
    async with worker(log, meet_odd_policy):
        handle = await start(log, meet_odd_policy.bind(waits))
        await until_status(handle, "parked")

    assert "Ergon failed to run it: ZeroDivisionError" in (await handle.record()).reason


async def test_an_object_with_several_flows_has_to_say_which(log: ExecutionLog) -> None:
    @flow_type
    @dataclass
    class Two:
        @flow
        async def one(self) -> None: ...

        @flow
        async def other(self) -> None: ...

    with pytest.raises(UsageError, match=r"Two\.one, Two\.other"):
        await Scheduler(log).schedule(Two())


# -- handles ---------------------------------------------------------------------------------------------------


async def test_waiting_for_a_result_may_time_out_and_be_repeated(log: ExecutionLog) -> None:
    @flow
    async def waits() -> str:
        return await wait_signal("go", str)

    async with worker(log, waits):
        handle = await start(log, waits.bind())
        with pytest.raises(TimeoutError):
            await handle.result(0.05)
        await handle.signal("go", "went")

        assert await handle.result(10) == "went"
        assert await handle.result(10) == "went"


async def test_a_result_is_read_from_another_log_on_the_same_file_without_the_code(
    log: ExecutionLog, path: Path
) -> None:
    async with SqliteExecutionLog(path) as elsewhere, worker(log, job):
        started = await Scheduler(elsewhere).schedule_named("job", {"amount": 7}, id="f")

        assert await started.result(10) == 7
        assert await Scheduler(elsewhere).handle("f", int).result(10) == 7


async def test_many_wait_for_one_result(log: ExecutionLog) -> None:
    async with worker(log, job):
        handle = Scheduler(log).handle("f", int)
        await start(log, job.bind(3))

        assert set(await asyncio.gather(*(handle.result(10) for _ in range(50)))) == {3}


async def test_a_handle_for_nothing_says_so_at_once(log: ExecutionLog) -> None:
    handle = Scheduler(log).handle("nobody")
    for call in (
        handle.result,
        handle.status,
        handle.why,
        handle.cancel,
        handle.kill,
        handle.pause,
        handle.resume,
    ):
        with pytest.raises(FlowNotFound, match="nobody"):
            await call()


async def test_waiting_for_a_handle_inside_a_flow_is_refused(log: ExecutionLog) -> None:
    @flow
    async def wrong() -> None:
        await Scheduler(log).handle("f").result()

    async with worker(log, wrong):
        with pytest.raises(NotInFlow, match="invoke"):
            await (await start(log, wrong.bind())).result(10)


# -- the log ---------------------------------------------------------------------------------------------------


async def test_a_closed_log_and_one_never_opened_refuse_plainly(path: Path) -> None:
    log = SqliteExecutionLog(path)
    with pytest.raises(LogClosed):
        await start(log, job.bind())
    await log.connect()
    handle = await start(log, job.bind())
    await log.close()
    await log.close()

    for call in (handle.status, handle.result, handle.cancel):
        with pytest.raises(LogClosed):
            await call()
    with pytest.raises(LogClosed):
        await worker(log, job).start()


async def test_whoever_waits_when_the_log_closes_is_told(path: Path) -> None:
    log = await SqliteExecutionLog(path).connect()
    handle = await start(log, job.bind())
    waiting = asyncio.create_task(handle.result())
    await until_status(handle, "pending")
    await asyncio.sleep(0)
    await log.close()

    with pytest.raises(LogClosed):
        async with asyncio.timeout(5):
            await waiting


async def test_a_log_carried_through_a_fork_is_refused_in_the_child(path: Path) -> None:
    """SQLite's locks belong to a process: a forked child that wrote would damage the file."""
    async with SqliteExecutionLog(path) as log:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                log.submit(None, lambda _: None)  # type: ignore[arg-type]
            except ForkedConnection as error:
                os.write(write, f"{error}".encode())
            except BaseException as error:
                os.write(write, repr(error).encode())
            os._exit(0)
        os.close(write)
        os.waitpid(pid, 0)
        told = os.read(read, 1_000).decode()
        os.close(read)

        assert "fork" in told
        await start(log, job.bind())


async def test_a_log_from_the_future_is_refused(path: Path) -> None:
    async with SqliteExecutionLog(path) as log:
        await start(log, job.bind())
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9999")
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    connection.close()
    assert tables

    with pytest.raises(LogTooNew, match=r"[Uu]pgrade"):
        await SqliteExecutionLog(path).connect()


async def test_a_log_in_memory_is_as_good_until_it_is_closed() -> None:
    async with InMemoryExecutionLog() as log, worker(log, job):
        assert await (await start(log, job.bind(2))).result(10) == 2
        assert (await log.durability()).level == "D0"


@flow
async def awaits_the_handle() -> None:
    await invoke(job.bind(), id="child")  # type: ignore[misc]


async def test_a_childs_handle_that_is_awaited_says_what_to_write(log: ExecutionLog) -> None:
    async with worker(log, awaits_the_handle, job):
        with pytest.raises(UsageError, match=r"write `await invoke\(\.\.\.\)\.result\(\)`"):
            await (await start(log, awaits_the_handle.bind())).result(10)


@flow
async def waits_for_word() -> str:
    return await wait_signal("word", str)


async def test_whoever_waits_too_long_for_a_result_hears_what_to_do(log: ExecutionLog) -> None:
    handle = await start(log, waits_for_word.bind())

    with pytest.raises(
        TimeoutError, match=r"flow 'f' was not seen to end within 0\.05 s.* wait again, or ask .*why"
    ):
        await handle.result(0.05)
    with pytest.raises(TimeoutError) as outer:
        async with asyncio.timeout(0.05):
            await handle.result(60)
    assert not str(outer.value), "that limit is the caller's own"


async def test_whoever_waits_too_long_for_many_results_hears_how_many_ended_and_which_did_not(
    log: ExecutionLog,
) -> None:
    async with worker(log, waits_for_word):
        handles = [await start(log, waits_for_word.bind(), id=id) for id in ("a", "b", "c")]
        await handles[0].signal("word", "go")
        await handles[0].result(10)
        scheduler = Scheduler(log)
        for return_exceptions in (False, True):
            with pytest.raises(
                TimeoutError,
                match=r"^1 of 3 flows were seen to end within 0\.05 s; the first .*'b'.*wait again",
            ):
                await scheduler.results(handles, 0.05, return_exceptions=return_exceptions)
        with pytest.raises(TimeoutError) as outer:
            async with asyncio.timeout(0.05):
                await scheduler.results(handles, 60)
    assert not str(outer.value), "that limit is the caller's own"


async def test_a_flow_that_raised_timeout_error_is_not_taken_for_one_that_is_late(log: ExecutionLog) -> None:
    @flow
    async def is_late() -> None:
        raise TimeoutError("its own")

    async with worker(log, is_late):
        handle = await start(log, is_late.bind())
        with pytest.raises(TimeoutError, match="its own") as raised:
            await Scheduler(log).results([handle], 60)
    assert "wait again" not in str(raised.value)


@flow
async def forgets_to_await() -> int:
    return job_step(1) + 1  # type: ignore[operator]


@step
async def job_step(number: int) -> int:
    return number


async def test_a_step_that_was_never_awaited_is_told_with_the_line_that_called_it(log: ExecutionLog) -> None:
    async def fail() -> None:
        async with worker(log, forgets_to_await):
            with pytest.raises(TypeError):
                await (await start(log, forgets_to_await.bind())).result(10)
            gc.collect()

    with pytest.warns(RuntimeWarning, match=r"step `job_step` was called at test_mistakes\.py:\d+ but never"):
        await fail()
