"""A digest is the same for the same arguments wherever it is taken, or replay would stop for no reason."""

from __future__ import annotations

import enum
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ergon.core.codec import digest, recode
from ergon.core.codec.decode import decoder_for


@dataclass(frozen=True)
class Point:
    x: int
    tags: frozenset[str] = frozenset()


class Colour(enum.Enum):
    RED = "red"


class Model(pydantic.BaseModel):
    tags: set[str]


SCRIPT = """
import uuid, datetime, decimal, enum
from dataclasses import dataclass
from ergon.core.codec import digest

@dataclass(frozen=True)
class Point:
    x: int
    tags: frozenset[str] = frozenset()

class Opaque: pass

words = ["one", "two", "three", "four", "five", "six", "seven"]
print(digest((1, "a", None, 2.5, words), {"key": b"x", "other": True}))
print(digest((set(words),), {}))
print(digest(({frozenset(words), frozenset(words[:3]), frozenset()},), {}))
print(digest(({1, "a", 2.5, None, (1, "b")},), {}))
print(digest(({Point(1, frozenset(words)), Point(2)},), {}))
print(digest(({1: 2, "a": 1, uuid.UUID(int=3): {4: 5}},), {}))
print(digest((Opaque(), [print], {"x": Opaque()}), {}))
print(digest(([float("nan"), {1.0, float("nan"), 2.0, float("inf")}],), {}))
print(digest((decimal.Decimal("1.10"), datetime.date(2026, 1, 1), 2**80, Point), {}))
"""


def test_hash_seeds_do_not_change_a_digest() -> None:
    seen = set()
    for seed in ("0", "1", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        seen.add(done.stdout)

    assert len(seen) == 1
    lines = seen.pop().split()
    assert len(set(lines)) == len(lines) == 9
    assert all(0 <= int(line, 16) < 1 << 64 for line in lines)


@pytest.mark.parametrize(
    "args, kwargs, expected",
    [
        ((), {}, "0xd4cbb29b275b99a"),
        ((1, "a"), {}, "0x86efd9f530d0fa36"),
        ((), {"a": 1, "b": [1.5, None]}, "0x641469b1bb61d740"),
        (({3, 1, 2},), {}, "0x6ddfe1c7f388563e"),
        (([[1], [2]],), {}, "0x91aa2a02cc05ff1a"),
    ],
)
def test_digests_in_logs_written_earlier_stay_valid(
    args: tuple[Any, ...], kwargs: dict[str, Any], expected: str
) -> None:
    """Changing any of these makes every stored history disagree with its code."""
    assert digest(args, kwargs) == expected


def test_order_of_keywords_sets_and_dicts_does_not_count() -> None:
    assert digest((), {"a": 1, "b": 2}) == digest((), {"b": 2, "a": 1})
    assert digest(({"a": 1, "b": {1: 2, 3: 4}},), {}) == digest(({"b": {3: 4, 1: 2}, "a": 1},), {})
    assert digest((Model(tags={"a", "b", "c"}),), {}) == digest((Model(tags={"c", "b", "a"}),), {})


def test_different_arguments_have_different_digests() -> None:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((), {}), ((None,), {}), ((1,), {}), (("1",), {}), ((1, 2), {}), (([1, 2],), {}), ((), {"a": 1}),
        ((1,), {"a": 1}), (({"a": 1},), {}), ((1.0,), {}), ((True,), {}), ((Point(1),), {}), ((Point(2),), {}),
        ((Colour.RED, UUID(int=1)), {}), (([[1]],), {}), (([[2]],), {}),
    ]  # fmt: skip
    digests = [digest(*call) for call in calls]

    assert len(set(digests)) == len(digests)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=60)
@given(st.lists(values, max_size=3), st.dictionaries(st.text(min_size=1), values, max_size=2))
def test_a_value_that_went_through_the_log_has_the_same_digest(
    args: list[Any], kwargs: dict[str, Any]
) -> None:
    """Live, a step gets a fresh value; on replay, a decoded one."""
    copies = recode(args, decoder_for(list[Any]))[1]

    assert digest(tuple(args), kwargs) == digest(tuple(copies), dict(reversed(kwargs.items())))


class Opaque:
    def __repr__(self) -> str:
        raise RuntimeError


def test_an_argument_without_a_json_form_counts_by_its_class() -> None:
    ring: list[Any] = []
    ring.append(ring)

    assert digest((Opaque(),), {}) == digest((Opaque(),), {})
    assert digest((Opaque(), 1), {}) != digest((Opaque(), 2), {})
    assert digest((Opaque(),), {}) != digest((object(),), {})
    assert digest((ring,), {}) == digest(([*ring],), {})
    assert digest(("\ud800",), {"k": 1}) != digest(("\ud800",), {"k": 2})
