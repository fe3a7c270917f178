"""Options that could only hang, park or be cut off are refused where they are given, with what to give instead."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from ergon import RetryPolicy, ScheduleOptions, WorkerOptions, flow, step
from ergon.core.checks import check_names, check_priority, check_seconds, check_timeout, check_whole
from ergon.errors import ErgonError, InvalidName, UsageError
from ergon.scheduler.times import start_at

NO_SECONDS: list[Any] = [0, -1, math.nan, math.inf, 1e300, "5", True, None, 1j]


@pytest.mark.parametrize("value", NO_SECONDS)
def test_what_is_no_stretch_of_time_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match=r"lease=.*: give seconds greater than 0 up to a hundred years"):
        check_seconds("lease", value)


@pytest.mark.parametrize("value", [1, 0.001, 3.2e9])
def test_seconds_are_numbers_of_any_kind(value: float) -> None:
    assert check_seconds("lease", value) == check_timeout(value) == value


def test_some_stretches_may_be_nothing_or_endless() -> None:
    assert check_seconds("drain", 0, zero=True) == 0
    assert check_seconds("drain", math.inf, endless=True) == math.inf
    with pytest.raises(UsageError, match=r"drain=nan: give seconds from 0$"):
        check_seconds("drain", math.nan, zero=True, endless=True)


@pytest.mark.parametrize("value", [value for value in NO_SECONDS if value is not None])
def test_a_timeout_that_no_clock_can_keep_is_refused_wherever_one_is_given(value: Any) -> None:
    for give in (
        lambda: flow(timeout=value),
        lambda: step(timeout=value),
        lambda: ScheduleOptions(timeout=value),
    ):
        with pytest.raises(
            UsageError, match=r"timeout=.*greater than 0 up to a hundred years, or None for no limit"
        ):
            give()


@pytest.mark.parametrize("value", ["high", 2**70, -(2**70), 1.5, True])
def test_a_priority_that_no_log_can_keep_is_refused(value: Any) -> None:
    for give in (
        lambda: check_priority(value),
        lambda: flow(priority=value),
        lambda: ScheduleOptions(priority=value),
    ):
        with pytest.raises(UsageError, match=r"priority=.*: give a whole number from"):
            give()


@pytest.mark.parametrize("value", [0, -1, 0.5, "7", True, 10**12])
@pytest.mark.parametrize("option", ["capacity", "step_threads", "claims_stalled_max"])
def test_a_worker_counts_in_whole_numbers_from_one(option: str, value: Any) -> None:
    given: dict[str, Any] = {option: value}
    with pytest.raises(UsageError, match=f"{option}=.*: give a whole number from 1 to 1,000,000,000"):
        WorkerOptions(**given)


@pytest.mark.parametrize("option", ["lease_seconds", "poll_seconds", "reap_seconds", "evict_after_seconds"])
def test_a_worker_looks_after_a_stretch_of_time(option: str) -> None:
    value: Any
    for value in (0, -1, math.nan, "1"):
        given: dict[str, Any] = {option: value}
        with pytest.raises(UsageError, match=f"{option}=.*: give seconds greater than 0"):
            WorkerOptions(**given)


def test_names_are_several_and_one_text_is_not_split_into_letters() -> None:
    assert check_names("queue", ["a", "b"]) == ("a", "b")
    assert check_whole("n", 3, least=1) == 3
    with pytest.raises(InvalidName, match=r"queues='default': give several.*write \('default',\) for one"):
        check_names("queue", "default")
    for value, said in (([], "give at least one"), (7, "give several names"), ([7], "queue must be a str")):
        with pytest.raises(ErgonError, match=said):
            check_names("queue", value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["5", True, -1, math.nan, math.inf])
def test_a_delay_that_no_clock_can_keep_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match=r"delay=.*: give seconds from 0 up to a hundred years"):
        start_at(None, value)


def test_a_start_time_is_a_datetime_with_a_time_zone() -> None:
    at: Any
    for at in ("tomorrow", 5, datetime.now(UTC).replace(tzinfo=None)):
        with pytest.raises(UsageError, match="time zone"):
            start_at(at, None)


@pytest.mark.parametrize("decorate", [step, flow])
def test_a_number_is_no_retry_policy(decorate: Any) -> None:
    with pytest.raises(UsageError, match=r"retry=3: give a policy, such as RetryPolicy\(attempts_max=3\)"):
        decorate(retry=3)
    with pytest.raises(UsageError, match="retry=None: give a policy"):
        decorate(retry=None)
    assert decorate(retry=RetryPolicy.STANDARD)
