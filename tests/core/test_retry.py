"""Whether a failed step is tried again, and when: decided from the policy, the error and the given chance alone."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ergon.core.retry import RetryableError, RetryPolicy, next_delay
from ergon.errors import DecodingError, EncodingError, NonDeterminismError, NotInFlow, StepTimeout, UsageError


def delays(policy: RetryPolicy, error: Exception | None = None, seed: int = 1) -> list[float | None]:
    rng = Random(seed)
    return [
        next_delay(policy, attempt, error or ValueError(), rng)
        for attempt in range(1, policy.attempts_max + 1)
    ]


def test_the_named_policies() -> None:
    assert delays(RetryPolicy.NONE) == [None]
    assert delays(RetryPolicy.STANDARD) == [1.0, 2.0, None]
    aggressive = delays(RetryPolicy.AGGRESSIVE)
    assert aggressive[:3] == [0.1, pytest.approx(0.15), pytest.approx(0.225)]
    assert len(aggressive) == 10
    assert aggressive[-1] is None


def test_backoff_grows_by_its_kind_up_to_the_longest_delay() -> None:
    assert delays(RetryPolicy(attempts_max=5, backoff="fixed", first_delay_seconds=2)) == [2, 2, 2, 2, None]
    assert delays(RetryPolicy(attempts_max=5, backoff="linear", first_delay_seconds=2)) == [2, 4, 6, 8, None]
    policy = RetryPolicy(attempts_max=6, factor=3, delay_max_seconds=10)
    assert delays(policy) == [1, 3, 9, 10, 10, None]
    assert next_delay(RetryPolicy(attempts_max=10**6), 999_999, ValueError(), Random()) == 30


def test_with_max_attempts_changes_nothing_else() -> None:
    policy = RetryPolicy.STANDARD.with_max_attempts(7)

    assert policy.attempts_max == 7
    assert policy.with_max_attempts(3) == RetryPolicy.STANDARD


@settings(max_examples=60)
@given(st.integers(1, 50), st.floats(0, 1), st.integers())
def test_jitter_stays_in_its_share_and_repeats_for_the_same_seed(
    attempt: int, jitter: float, seed: int
) -> None:
    policy = RetryPolicy(attempts_max=60, jitter=jitter, delay_max_seconds=100)
    plain = policy.delay_after(attempt)

    delay = next_delay(policy, attempt, ValueError(), Random(seed))

    assert delay is not None
    assert plain * (1 - jitter) <= delay <= min(plain * (1 + jitter), 100)
    assert delay == next_delay(policy, attempt, ValueError(), Random(seed))


class Flaky(Exception):
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def is_retryable(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def retried(policy: RetryPolicy, error: Exception) -> bool:
    return next_delay(policy, 1, error, Random(1)) is not None


def test_an_errors_own_answer_wins_over_the_policy() -> None:
    assert not retried(RetryPolicy(), Flaky(answer=False))
    assert retried(RetryPolicy(give_up_on=Flaky), Flaky(answer=True))
    assert retried(RetryPolicy(retry_on=KeyError), RetryableError())
    assert not retried(RetryPolicy.NONE, Flaky(answer=True)), "attempts still run out"


@pytest.mark.parametrize("answer", [ValueError(), None, "yes", 1])
def test_an_answer_that_is_no_bool_leaves_it_to_the_policy(answer: Any) -> None:
    assert retried(RetryPolicy(), Flaky(answer))
    assert not retried(RetryPolicy(give_up_on=Flaky), Flaky(answer))


def test_classes_and_functions_choose_which_errors_are_retried() -> None:
    assert retried(RetryPolicy(retry_on=LookupError), KeyError())
    assert not retried(RetryPolicy(retry_on=(LookupError, OSError)), ValueError())
    assert not retried(RetryPolicy(retry_on=Exception, give_up_on=(KeyError,)), KeyError())
    assert retried(RetryPolicy(retry_on=lambda error: "busy" in str(error)), ValueError("busy"))
    assert not retried(RetryPolicy(retry_on=lambda error: "busy" in str(error)), ValueError("gone"))
    assert not retried(RetryPolicy(retry_on=lambda error: 1 // 0 > 0), ValueError()), (
        "a judge that fails says no"
    )


@pytest.mark.parametrize(
    "error",
    [
        UsageError(),
        NotInFlow(),
        EncodingError("x"),
        DecodingError("x"),
        NonDeterminismError(expected="a", actual="b"),
    ],
)
def test_mistakes_in_the_code_are_never_retried(error: Exception) -> None:
    assert not retried(RetryPolicy(retry_on=Exception), error)


def test_a_timeout_of_a_step_is_retried() -> None:
    assert retried(RetryPolicy(), StepTimeout())


@pytest.mark.parametrize(
    "asked, expected",
    [(5, 5.0), (0, 0.0), (1e9, 30.0), (-1, 1.0), (float("nan"), 1.0), (float("inf"), 1.0), ("5", 1.0), (True, 1.0),
     (10**400, 1.0)],
)  # fmt: skip
def test_an_error_may_ask_for_its_delay(asked: Any, expected: float) -> None:
    error = ValueError()
    error.retry_after_seconds = asked  # type: ignore[attr-defined]

    assert next_delay(RetryPolicy(jitter=0), 1, error, Random(1)) == expected


def test_a_first_delay_longer_than_any_by_default_is_the_longest() -> None:
    assert delays(RetryPolicy(attempts_max=3, first_delay_seconds=300)) == [300, 300, None]
    assert delays(RetryPolicy(attempts_max=3, first_delay_seconds=20)) == [20, 30, None]


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts_max": 0}, {"attempts_max": -1}, {"attempts_max": 10**9}, {"attempts_max": 1.5},
        {"attempts_max": True}, {"attempts_max": float("nan")}, {"attempts_max": "3"},
        {"first_delay_seconds": -1}, {"first_delay_seconds": float("nan")}, {"first_delay_seconds": 10**9},
        {"first_delay_seconds": None}, {"first_delay_seconds": 2, "delay_max_seconds": 1},
        {"delay_max_seconds": float("inf")}, {"delay_max_seconds": -0.1},
        {"factor": 0}, {"factor": float("nan")}, {"factor": 10**9}, {"jitter": 1.1}, {"jitter": -0.1},
        {"jitter": float("nan")}, {"backoff": "random"}, {"retry_on": "ValueError"}, {"retry_on": (ValueError, 3)},
        {"give_up_on": BaseException}, {"give_up_on": int}, {"retry_on": KeyboardInterrupt},
    ],
    ids=str,
)  # fmt: skip
def test_a_policy_that_makes_no_sense_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        RetryPolicy(**wrong)
