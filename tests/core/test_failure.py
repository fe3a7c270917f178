"""An error read from the log is caught and looked at like the one that was raised, and can do nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.error import URLError
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ergon.errors
from ergon.core.codec import decoder_for
from ergon.core.failure import describe, rebuild
from ergon.errors import (
    DecodingError,
    EncodingError,
    FlowParked,
    NonDeterminismError,
    NotInFlow,
    StepFailed,
    StepTimeout,
)


class InsufficientFunds(Exception):
    def __init__(self, balance: Decimal, *, account: UUID) -> None:
        self.balance, self.account = balance, account
        super().__init__(f"{account} holds only {balance}")


@dataclass
class Quota:
    used: int


class OverQuota(Exception):
    quota: Quota

    def __init__(self, quota: Quota, retry_after_seconds: float) -> None:
        self.quota, self.retry_after_seconds = quota, retry_after_seconds
        super().__init__("over quota")

    def is_retryable(self) -> bool:
        return True


class Slotted(ValueError):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(code)


class Outer:
    class Inner(LookupError):
        pass


def travelled(error: Exception) -> Any:
    return rebuild(describe(error))


def raised(make: Callable[[], Exception]) -> Exception:
    try:
        raise make()
    except Exception as error:
        return error


def test_an_error_keeps_its_class_message_and_attributes() -> None:
    error = raised(lambda: InsufficientFunds(Decimal("1.10"), account=UUID(int=1)))

    with pytest.raises(InsufficientFunds) as caught:
        raise travelled(error)

    assert caught.value.balance == Decimal("1.10")
    assert caught.value.account == UUID(int=1)
    assert str(caught.value) == str(error)
    assert caught.value.args == error.args


def test_an_attribute_whose_class_is_declared_reads_back_as_that_class() -> None:
    copy = travelled(OverQuota(Quota(3), 1.5))

    assert copy.quota == Quota(3)
    assert copy.retry_after_seconds == 1.5
    assert copy.is_retryable()
    assert json.loads(describe(copy))["retryable"] is True


BUILT_IN = [
    ValueError("a", 1, None, True, 1.5),
    KeyError("a"),
    TimeoutError(),
    StopIteration(3),
    FileNotFoundError(2, "no such file", "a.txt"),
    OSError(18, "cross", "a", None, "b"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    SyntaxError("bad", ("f.py", 1, 2, "text")),
    ZeroDivisionError("€ \U0001f600 \x00"),
    sqlite3.OperationalError("locked"),
    json.JSONDecodeError("bad", "doc", 1),
    zlib.error("bad"),
    asyncio.QueueFull(),
    Slotted(4),
    Outer.Inner("x"),
    ValueError(Decimal(1), b"\xff", (1, {2}), {"$": 1, 2: frozenset({3})}, float("inf")),
    FlowParked("f", "why"),
    NonDeterminismError(expected="a", actual="b", seq=3),
    EncodingError("bad", path="$.a"),
    NotInFlow("no"),
    StepTimeout("late"),
    StepFailed("a.B", "why"),
    ExceptionGroup("many", [ValueError(1), ExceptionGroup("inner", [KeyError("a")])]),
]


@pytest.mark.parametrize("error", BUILT_IN, ids=lambda error: type(error).__name__)
def test_errors_of_every_make_travel(error: Exception) -> None:
    copy = travelled(error)

    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert repr(copy) == repr(error)
    assert vars(copy) == vars(error)
    assert describe(copy) == describe(travelled(copy)), "further trips change nothing"


def test_attributes_of_the_interpreter_are_kept() -> None:
    error = travelled(FileNotFoundError(2, "no such file", "a.txt"))
    assert (error.errno, error.filename) == (2, "a.txt")
    assert travelled(StopIteration(3)).value == 3
    assert travelled(Slotted(4)).code == 4
    assert travelled(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")).object == b"\xff"


def test_causes_contexts_and_notes_are_kept() -> None:
    def fail() -> None:
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise ValueError("second")  # noqa: B904  # the context is the point
        except ValueError as error:
            raise InsufficientFunds(Decimal(1), account=UUID(int=1)) from error

    with pytest.raises(InsufficientFunds) as caught:
        fail()
    caught.value.add_note("a note")
    copy = travelled(caught.value)

    assert isinstance(copy.__cause__, ValueError)
    assert isinstance(copy.__cause__.__context__, KeyError)
    assert copy.__notes__ == ["a note"]
    assert "fail (test_failure.py:" in "".join(json.loads(describe(caught.value))["traceback"])


def test_except_star_works_on_a_group_that_travelled() -> None:
    seen: list[Any] = []
    try:
        raise travelled(
            ExceptionGroup("many", [InsufficientFunds(Decimal(1), account=UUID(int=1)), KeyError("a")])
        )
    except* InsufficientFunds as group:
        first: Any = group.exceptions[0]
        seen.append(first.balance)
    except* KeyError:
        seen.append(Decimal(2))

    assert seen == [Decimal(1), Decimal(2)]


def test_an_error_whose_class_is_out_of_reach_is_a_step_failed() -> None:
    class Local(Exception):
        pass

    copy = travelled(Local("why"))

    assert type(copy) is StepFailed
    assert copy.type_name.endswith("<locals>.Local")
    assert copy.message == "why"


def test_classes_of_a_script_are_found_when_the_script_starts_again(tmp_path: Any) -> None:
    """Whether it runs as a script or with `python -m`, its classes are in `__main__`."""
    (tmp_path / "app.py").write_text(
        "import sys\n"
        "from ergon.core.failure import describe, rebuild\n"
        "class Broke(Exception):\n    pass\n"
        "if __name__ == '__main__':\n"
        "    error = Broke('x')\n"
        "    text = sys.argv[1] if len(sys.argv) > 1 else describe(error)\n"
        "    assert type(rebuild(text)) is Broke, text\n"
        "    print(text)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(ergon.errors.__file__).parents[1])}
    for command in (["app.py"], ["-m", "app"]):
        first = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        subprocess.run(
            [sys.executable, *command, first.stdout], cwd=tmp_path, env=env, check=True, timeout=30
        )
    importer = "import app, sys; from ergon.core.failure import rebuild; assert type(rebuild(sys.argv[1])) is app.Broke"
    subprocess.run(
        [sys.executable, "-c", importer, first.stdout], cwd=tmp_path, env=env, check=True, timeout=30
    )


def test_long_messages_are_cut_with_a_note() -> None:
    error = ValueError("x" * 1_000_000)
    error.body = "y" * 1_000_000  # type: ignore[attr-defined]
    error.list = ["z" * 5_000] * 1_000  # type: ignore[attr-defined]
    error.__cause__ = error

    text = describe(error)

    assert len(text) < 100_000
    assert "[cut: 1,000,000 characters]" in str(rebuild(text))


def test_chains_and_groups_without_end_are_bounded() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    deep = ValueError(0)
    for n in range(5_000):
        deep, deep.__cause__ = ValueError(n), deep  # a chain
    wide = ExceptionGroup(
        "wide", [ExceptionGroup("w", [ValueError(n) for n in range(200)]) for _ in range(200)]
    )

    assert str(travelled(one).__cause__) == "other"
    assert len(describe(deep)) < 10_000
    assert len(describe(wide)) < 100_000
    assert isinstance(travelled(wide), ExceptionGroup)


def test_a_deep_stack_is_shortened_in_the_middle() -> None:
    def down(n: int) -> None:
        if n == 0:
            raise ValueError
        down(n - 1)

    with pytest.raises(ValueError) as caught:  # noqa: PT011  # any will do
        down(300)
    frames = json.loads(describe(caught.value))["traceback"]

    assert len(frames) <= 21
    assert any("more" in frame for frame in frames)


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__

    def is_retryable(self) -> bool:
        raise RuntimeError

    def __reduce__(self) -> Any:
        raise SystemExit

    @property
    def args(self) -> Any:  # type: ignore[override]
        raise RuntimeError


def test_an_error_that_raises_at_every_touch_is_still_described() -> None:
    error = Hostile()
    error.self = error  # type: ignore[attr-defined]
    error.odd = object()  # type: ignore[attr-defined]

    assert type(travelled(error)) is Hostile
    assert "RuntimeError" in json.loads(describe(error))["message"]


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(), asyncio.CancelledError(), GeneratorExit()]
)
def test_what_is_not_a_failure_is_never_described(error: BaseException) -> None:
    with pytest.raises(AssertionError):
        describe(error)


@settings(max_examples=60)
@given(
    st.lists(
        st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.decimals(allow_nan=False) | st.uuids()
        | st.dates() | st.timedeltas() | st.sets(st.integers()) | st.dictionaries(st.integers() | st.text(), st.text())
    )
)  # fmt: skip
def test_arguments_of_common_types_travel(args: list[Any]) -> None:
    copy = travelled(ValueError(*args))

    assert copy.args == tuple(args)[:20]
    assert [type(each) for each in copy.args] == [type(each) for each in args[:20]]


def test_an_error_kept_in_an_attribute_travels_as_its_text() -> None:
    """As `urllib` keeps why a connection failed, and needs it to say anything at all."""
    read = travelled(URLError(ConnectionRefusedError(111, "Connection refused")))

    assert type(read) is URLError
    assert str(read) == "<urlopen error [Errno 111] Connection refused>"
    assert read.reason == "[Errno 111] Connection refused"


class NeedsItsSocket(Exception):
    """Says something only as long as it has what cannot travel."""

    def __init__(self, socket: object) -> None:
        self.socket = socket

    def __str__(self) -> str:
        return f"lost {type(self.socket).__name__}"


def test_an_error_that_would_lose_its_message_is_replaced_by_one_that_has_it() -> None:
    read = travelled(NeedsItsSocket(object()))

    assert type(read) is StepFailed
    assert "lost object" in str(read)


def test_the_place_of_a_failure_is_in_the_users_code() -> None:
    def ask() -> object:
        return decoder_for(int).decode("[]")

    with pytest.raises(DecodingError) as raised:
        ask()

    frames = json.loads(describe(raised.value))["traceback"]
    assert [frame.partition(" (")[0] for frame in frames] == [
        "test_the_place_of_a_failure_is_in_the_users_code",
        "ask",
    ]


def test_what_ergon_refuses_to_the_standard_library_is_refused_to_whoever_called_that() -> None:
    def ask() -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(decoder_for(int).decode, "[]")

    with pytest.raises(DecodingError) as raised:
        ask()

    assert names_of_frames(describe(raised.value))[-1] == "ask"


def test_an_error_of_the_standard_librarys_own_keeps_its_place() -> None:
    with pytest.raises(json.JSONDecodeError) as raised:
        json.loads("{")

    assert "(decoder.py:" in json.loads(describe(raised.value))["traceback"][-1]


def names_of_frames(text: str) -> list[str]:
    return [frame.partition(" (")[0] for frame in json.loads(text)["traceback"]]


def test_an_error_that_travelled_is_told_with_the_place_where_it_was_raised_first() -> None:
    """As it does from a step to its flow, and from a child to its parent."""

    def breaks() -> None:
        raise ValueError("no stock")

    def awaits(answer: Exception) -> None:
        raise answer

    with pytest.raises(ValueError, match="no stock") as first:
        breaks()
    with pytest.raises(ValueError, match="no stock") as second:
        awaits(travelled(first.value))

    here = "test_an_error_that_travelled_is_told_with_the_place_where_it_was_raised_first"
    again = describe(second.value)
    assert names_of_frames(again) == [here, "awaits", here, "breaks"]
    assert "attrs" not in json.loads(again)
    assert names_of_frames(describe(travelled(second.value))) == [here, "awaits", here, "breaks"]


def test_a_place_inside_ergon_does_not_travel_in_front_of_the_users() -> None:
    inside = json.loads(describe(ValueError("late"))) | {"traceback": ["call (calls.py:42)"], "inside": True}

    def awaits() -> None:
        raise rebuild(json.dumps(inside))

    with pytest.raises(ValueError, match="late") as caught:
        awaits()

    assert names_of_frames(describe(caught.value))[-1] == "awaits"


def test_the_place_of_an_error_that_travels_far_is_shortened_in_the_middle() -> None:
    error: Exception = ValueError("far")
    for _ in range(30):
        with pytest.raises(ValueError, match="far") as caught:
            raise travelled(error)
        error = caught.value

    frames = json.loads(describe(error))["traceback"]
    assert len(frames) <= 21
    assert any("more" in frame for frame in frames)


@pytest.mark.parametrize("traceback", [1, "text", {}, [1, None], ["x" * 10_000] * 1_000])
def test_a_damaged_place_is_left_out_or_cut(traceback: Any) -> None:
    error = rebuild(json.dumps({"module": "builtins", "type": "ValueError", "traceback": traceback}))

    assert type(error) is ValueError
    assert len(describe(error)) < 20_000
