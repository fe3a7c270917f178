"""Whether and when a failed step is tried again. Pure: chance comes in as `rng`, time only as seconds to wait."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any, ClassVar, Final, Literal, cast

from ergon.errors import EncodingError, NonDeterminismError, UsageError

ATTEMPTS_MAX: Final = 1_000_000
DELAY_SECONDS_MAX: Final = 365 * 86_400.0
FACTOR_MAX: Final = 1_000.0
LONGEST_DELAY_SECONDS: Final = 30.0
"""Where the policy asks for no longer one."""

_NEVER: Final = (UsageError, EncodingError, NonDeterminismError)
"""Mistakes in the code: the same call fails the same way again."""

Errors = type[Exception] | tuple[type[Exception], ...]


class RetryableError(Exception):
    """Base for errors that know whether another attempt may help.

    Any error with an `is_retryable()` method is asked, whatever its base class; its answer wins over the policy.
    An error may also say how long to wait, in an attribute `retry_after_seconds`.
    """

    def is_retryable(self) -> bool:
        """Tell whether another attempt may help; True unless overridden."""
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a failed step is tried again, and how long to wait in between.

    The wait after attempt n is `first_delay_seconds` (fixed), times n (linear), or times `factor` to the power of
    n - 1 (exponential); then varied by `jitter` and cut at `delay_max_seconds`.

    Raises `UsageError` for values that make no sense.
    """

    attempts_max: int = 3
    """Attempts in all, the first included: 1 to 1,000,000."""
    backoff: Literal["exponential", "linear", "fixed"] = "exponential"
    first_delay_seconds: float = 1.0
    """0 to a year."""
    factor: float = 2.0
    """1 to 1,000; only for exponential."""
    delay_max_seconds: float = cast("float", None)
    """No wait is longer, not even one an error asks for. `first_delay_seconds` to a year; default: 30, or
    `first_delay_seconds` where that is more."""
    jitter: float = 0.0
    """0 to 1: a wait varies by up to this share of itself, so that many failed steps do not return at once."""
    retry_on: Errors | Callable[[Exception], bool] | None = None
    """Retry only these classes, or those a function says yes to; None: any error."""
    give_up_on: Errors = ()
    """Never retry these classes, though `retry_on` would."""

    NONE: ClassVar[RetryPolicy]
    """One attempt."""
    STANDARD: ClassVar[RetryPolicy]
    """3 attempts, after 1 s and 2 s."""
    AGGRESSIVE: ClassVar[RetryPolicy]
    """10 attempts, after 0.1 s, 0.15 s, 0.225 s ... at most 10 s."""

    def __post_init__(self) -> None:
        _check_attempts(self.attempts_max)
        if self.backoff not in ("exponential", "linear", "fixed"):
            raise UsageError(f"backoff must be 'exponential', 'linear' or 'fixed', not {self.backoff!r}")
        _check_number("first_delay_seconds", self.first_delay_seconds, 0, DELAY_SECONDS_MAX)
        if cast("float | None", self.delay_max_seconds) is None:
            object.__setattr__(
                self, "delay_max_seconds", max(LONGEST_DELAY_SECONDS, self.first_delay_seconds)
            )
        _check_number("delay_max_seconds", self.delay_max_seconds, 0, DELAY_SECONDS_MAX)
        if self.first_delay_seconds > self.delay_max_seconds:
            raise UsageError(
                f"first_delay_seconds={self.first_delay_seconds:g} is longer than delay_max_seconds="
                f"{self.delay_max_seconds:g}, and no wait is longer than that: leave the second out, or give more"
            )
        _check_number("factor", self.factor, 1, FACTOR_MAX)
        _check_number("jitter", self.jitter, 0, 1)
        _check_classes("give_up_on", self.give_up_on)
        if self.retry_on is not None and (
            isinstance(self.retry_on, type | tuple) or not callable(self.retry_on)
        ):
            _check_classes("retry_on", self.retry_on)

    def with_max_attempts(self, attempts: int) -> RetryPolicy:
        """The same policy with another number of attempts in all."""
        return replace(self, attempts_max=attempts)

    def delay_after(self, attempt: int) -> float:
        """Seconds to wait after attempt `attempt` (from 1), before jitter, cut at `delay_max_seconds`."""
        if self.backoff == "fixed":
            delay = self.first_delay_seconds
        elif self.backoff == "linear":
            delay = self.first_delay_seconds * attempt
        else:
            try:
                delay = self.first_delay_seconds * self.factor ** (attempt - 1)
            except OverflowError:
                delay = self.delay_max_seconds if self.first_delay_seconds else 0.0
        return min(delay, self.delay_max_seconds)


def check_policy(value: object) -> RetryPolicy:
    """Return a retry policy, else raise `UsageError` that says what to write."""
    if isinstance(value, RetryPolicy):
        return value
    number = value if isinstance(value, int) and not isinstance(value, bool) else 3
    raise UsageError(
        f"retry={value!r}: give a policy, such as RetryPolicy(attempts_max={number}) or RetryPolicy.STANDARD"
    )


def next_delay(policy: RetryPolicy, attempt: int, error: Exception, rng: Random) -> float | None:
    """Return the seconds to wait before the next attempt, or None when the step has failed for good.

    `attempt` is the number of the attempt that raised `error`, from 1. The same `rng` state gives the same answer.
    """
    if attempt >= policy.attempts_max or not is_retryable(policy, error):
        return None
    asked = _asked_delay(error)
    if asked is not None:
        return min(asked, policy.delay_max_seconds)
    delay = policy.delay_after(attempt)
    if policy.jitter:
        delay *= rng.uniform(1 - policy.jitter, 1 + policy.jitter)
    return min(delay, policy.delay_max_seconds)


def is_retryable(policy: RetryPolicy, error: Exception) -> bool:
    """Tell whether the policy allows another attempt after this error, leaving the count aside.

    In this order: mistakes in the code are never retried; the error's own `is_retryable()`; `give_up_on`; `retry_on`.
    A `retry_on` function that itself raises counts as no.
    """
    if isinstance(error, _NEVER):
        return False
    answer = own_answer(error)
    if answer is not None:
        return answer
    if isinstance(error, policy.give_up_on):
        return False
    if policy.retry_on is None:
        return True
    if isinstance(policy.retry_on, type | tuple):
        return isinstance(error, policy.retry_on)
    try:
        return bool(policy.retry_on(error))
    except Exception:  # noqa: BLE001  # the user's function; a retry must not hide the error it could not judge
        return False


def own_answer(error: BaseException) -> bool | None:
    """What the error's `is_retryable` says, as a method or a plain bool; None when it has none or it raises."""
    try:
        ask: Any = getattr(error, "is_retryable", None)
        answer = ask() if callable(ask) else ask
    except Exception:  # noqa: BLE001  # the user's method
        return None
    return answer if isinstance(answer, bool) else None


def _asked_delay(error: Exception) -> float | None:
    try:
        asked = getattr(error, "retry_after_seconds", None)
        if isinstance(asked, bool) or not isinstance(asked, int | float):
            return None
        seconds = float(asked)
    except Exception:  # noqa: BLE001  # the user's property, or an int beyond float
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _check_attempts(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= ATTEMPTS_MAX:
        raise UsageError(f"attempts_max must be a whole number from 1 to {ATTEMPTS_MAX:,}, not {value!r}")


def _check_number(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise UsageError(f"{name} must be a number from {low:,g} to {high:,.0f}, not {value!r}")


def _check_classes(name: str, value: object) -> None:
    classes = value if isinstance(value, tuple) else (value,)
    for each in classes:
        if not (isinstance(each, type) and issubclass(each, Exception)):
            raise UsageError(f"{name} must be an exception class or a tuple of them, not {each!r}")


# Below the checks, which run as these are made.
RetryPolicy.NONE = RetryPolicy(attempts_max=1)
RetryPolicy.STANDARD = RetryPolicy()
RetryPolicy.AGGRESSIVE = RetryPolicy(
    attempts_max=10, first_delay_seconds=0.1, factor=1.5, delay_max_seconds=10.0
)
