"""What a failed flow is told with: the errors that matter and the user's own lines."""

import gc
import json

import pytest

from ergon import RetryPolicy, Scheduler, SqliteExecutionLog, Worker, flow, step
from ergon.core.failure import describe, rebuild
from ergon.executor.failure_lines import failure_line, failure_lines
from tests.stories.helpers import until

FAILING = """\
import asyncio
from ergon import RetryPolicy, flow, step

@step(retry=RetryPolicy(attempts_max=1))
async def refuses(n: int) -> int:
    raise ValueError(f"{n} is too many")

@flow
async def several() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(refuses(1))

@step(retry=RetryPolicy(attempts_max=1))
async def loads() -> None:
    try:
        {}["price"]
    except KeyError as error:
        raise RuntimeError("no price list") from error

@flow
async def chained() -> None:
    await loads()

@flow
async def asks_the_library() -> None:
    asyncio.Semaphore(-1)

@flow
async def runs_a_loop() -> None:
    asyncio.run(asyncio.sleep(1))
"""


@pytest.fixture
def failing(ergon, here):
    (here / "failing.py").write_text(FAILING)
    return ergon


def grouped(*errors: Exception) -> str:
    """A group as a TaskGroup raises it, recorded."""
    return describe(ExceptionGroup("unhandled errors in a TaskGroup", errors))


def test_a_flow_that_fails_with_a_group_is_told_with_its_members_and_their_own_places(failing) -> None:
    ran = failing("run", "failing.py:several", "--id", "several")
    told = "(1 sub-exception): ValueError: 1 is too many, at failing.py:6"

    assert ran.code == 1
    assert told in ran.err
    assert told in failing("why", "several").out
    assert told in failing("ls").out
    full = failing("show", "several", "--full").out
    assert "several (failing.py:10)\n" in full
    assert "member 1: ValueError: 1 is too many   refuses (failing.py:6)\n" in full
    assert "backports.py" not in full


def test_a_group_of_many_errors_is_told_by_its_first_and_how_many_more_there_are() -> None:
    nested = ExceptionGroup("inner", [ValueError(str(number)) for number in range(3, 6)])

    line = failure_line(grouped(ValueError("1"), KeyError("2"), nested))

    assert line == (
        "ExceptionGroup: unhandled errors in a TaskGroup (3 sub-exceptions): "
        "ValueError: 1; KeyError: '2'; ValueError: 3; and 2 more"
    )
    assert failure_line(grouped(*map(ValueError, range(300)))).endswith("and 297 more")
    assert len(failure_line(grouped(*[ValueError("x" * 5_000)] * 3))) < 600


def test_the_cause_of_a_failure_is_named_in_its_line_and_shown_in_full(failing) -> None:
    ran = failing("run", "failing.py:chained", "--id", "chained")
    told = "RuntimeError: no price list, at failing.py:18 (caused by KeyError: 'price', at failing.py:16)"

    assert told in ran.err
    assert told in failing("why", "chained").out
    assert told in failing("ls").out
    full = failing("show", "chained", "--full").out
    assert (
        "  failure   RuntimeError: no price list   chained (failing.py:22) > loads (failing.py:18)\n" in full
    )
    assert "caused by KeyError: 'price'   loads (failing.py:16)\n" in full


def test_a_cause_that_says_nothing_new_or_has_no_room_is_left_to_the_full_account() -> None:
    for message, cause in (
        ("too late", TimeoutError()),
        ("not read: no such key", KeyError("no such key")),
        ("long", ValueError("x" * 500)),
    ):
        error = RuntimeError(message.replace("no such key", "'no such key'"))
        error.__cause__ = cause

        assert "caused by" not in failure_line(describe(error))
        assert [depth for _, depth in failure_lines(describe(error))] == [0, 1]


def test_what_was_being_handled_when_an_error_was_raised_is_shown_in_full() -> None:
    error = RuntimeError("undone")
    error.__context__ = ValueError("first")

    assert failure_line(describe(error)) == "RuntimeError: undone"
    assert failure_lines(describe(error))[1] == ("raised while handling ValueError: first", 1)


def test_what_the_standard_library_refuses_is_told_with_the_users_line(failing) -> None:
    told = failing("run", "failing.py:asks_the_library").err

    assert "ValueError: " in told
    assert ", at failing.py:26 (" in told


def test_a_loop_that_is_run_in_a_flow_is_told_with_the_line_and_without_a_warning(failing, recwarn) -> None:
    told = failing("run", "failing.py:runs_a_loop").err
    gc.collect()

    assert "asyncio.run() cannot be called from a running event loop, at failing.py:30 (" in told
    assert [str(each.message) for each in recwarn if "never awaited" in str(each.message)] == []


def test_a_decorator_that_refuses_is_told_with_the_line_that_has_it(ergon, here) -> None:
    (here / "plain.py").write_text("from ergon import flow\n\n@flow\ndef plain() -> None: ...\n")
    (here / "halts.py").write_text("import json\n\njson.loads('{')\n")

    assert "is a plain `def` (plain.py:3); " in ergon("run", "plain.py:plain").err
    assert "JSONDecodeError: " in (told := ergon("run", "halts:plain").err)
    assert " (halts.py:3); " in told


def test_frames_of_the_standard_library_are_kept_where_it_failed_and_travel_no_further() -> None:
    first = describe(raised_by(lambda: json.loads("{")))
    travelled = raised_by(lambda: raises(rebuild(first)))

    assert "(decoder.py:" in json.loads(first)["traceback"][-1]
    assert ", at test_failures.py:" in failure_line(first)
    assert "decoder.py" not in describe(travelled)
    assert failure_line(describe(travelled)) == failure_line(first)


def raises(error: Exception) -> None:
    raise error


def raised_by(function) -> Exception:
    with pytest.raises(Exception, match=r".") as raised:
        function()
    return raised.value


async def test_a_failed_attempt_is_shown_with_when_the_next_is_due_and_with_no_time_that_is_yet_to_come(
    ergon_async,
) -> None:
    patient = RetryPolicy(attempts_max=3, first_delay_seconds=600, jitter=0, delay_max_seconds=600)

    @step(retry=patient)
    async def is_down() -> None:
        raise ConnectionError("down")

    @flow
    async def insists() -> None:
        await is_down()

    async with SqliteExecutionLog("ergon.db") as log, Worker(log, flows=[insists]):
        handle = await Scheduler(log).schedule(insists.bind(), id="insists")
        for attempts in (1, 2):
            await until(lambda: has_failed(log, attempts))  # noqa: B023  # it is over before the next
            if attempts == 1:
                await handle.retry_now()
        await handle.cancel()
    shown = (await ergon_async("show", "insists")).out
    rows = [line.split("\t") for line in shown.splitlines() if line[:1].isdigit()]

    assert [(row[1], row[2]) for row in rows if row[2] == "step_retried"] == [("-", "step_retried")] * 2
    assert rows[0][-1].startswith("next attempt due +60")
    assert all(float(row[1].strip("+ s")) < 60 for row in rows if row[1] != "-")


async def has_failed(log: SqliteExecutionLog, times: int) -> bool:
    return [event.kind for event in await log.history("insists")].count("step_retried") == times
