"""What a step returns is what a replay reads: equal, and of the same class."""

from __future__ import annotations

import collections
import datetime as dt
import enum
import math
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    TypedDict,
    TypeVar,
)
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ergon.core.codec import MISSING, Decoder, decoder_for, encode, recode

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Odd(enum.Enum):
    PAIR = (1, 2)
    HALF = 1.5


class Point(NamedTuple):
    x: int
    y: float = 0.5


Bare = collections.namedtuple("Bare", "a b")  # noqa: PYI024  # without types: plain JSON


class Address(TypedDict):
    street: str
    number: NotRequired[int]


@dataclass
class Item:
    sku: str
    price: Decimal
    tags: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Order:
    id: UUID
    items: list[Item]
    placed: dt.datetime
    colour: Colour | None = None
    parent: Order | None = None


@dataclass
class Page(Generic[T]):
    items: list[T]
    next: str | None = None


@dataclass
class NumberedPage(Page[T]):
    number: int = 1


@dataclass
class Tally:
    kinds: ClassVar[list[str]] = []
    count: Final[int]
    inner: Tally | None = None


@attrs.frozen
class Parcel:
    weight: float
    labels: tuple[str, ...] = ()


class Trip(msgspec.Struct, frozen=True):
    legs: list[Point]


class Account(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)

    number: UUID
    opened: dt.date
    limit: Decimal = pydantic.Field(
        default=Decimal(0), validation_alias="inLimit", serialization_alias="outLimit"
    )


CustomerId = NewType("CustomerId", int)
UID = UUID(int=7)
NOON = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
ORDER = Order(UID, [Item("a", Decimal("1.10"), {"x"})], NOON, Colour.RED, Order(UID, [], NOON))

EXAMPLES: list[tuple[Any, Any]] = [
    (None, None),
    (True, bool),
    (2**70, int),
    (-(2**200), int),
    (-0.0, float),
    ("€ \x00 \U0001f600", str),
    (b"\xff\x00", bytes),
    (bytearray(b"a"), bytearray),
    (Decimal("1.10"), Decimal),
    (UID, UUID),
    (NOON, dt.datetime),
    (dt.datetime(2026, 5, 1), dt.datetime),  # noqa: DTZ001  # a naive one is a value too
    (dt.datetime(2026, 5, 1, tzinfo=dt.timezone(dt.timedelta(hours=-14))), dt.datetime),
    (dt.date(1, 1, 1), dt.date),
    (dt.time(1, 2, 3, 4), dt.time),
    (dt.timedelta.max, dt.timedelta),
    (dt.timedelta.min, dt.timedelta),
    (Colour.RED, Colour),
    (Level.HIGH, Level),
    (Access.READ | Access.WRITE, Access),
    (Odd.PAIR, Odd),
    (Odd.HALF, Odd | None),
    ("a", (Literal["a", 1] | None)),
    ({1, 2}, set[int]),
    (frozenset({frozenset({1})}), frozenset[frozenset[int]]),
    ((1, "a"), tuple[int, str]),
    ((), tuple[()]),
    ((1, 2, 3), tuple[int, ...]),
    ({1: "a"}, dict[int, str]),
    ({UID: [1]}, dict[UUID, list[int]]),
    ({Colour.RED: 1}, dict[Colour, int]),
    ({dt.date(2026, 1, 1): 1}, dict[dt.date, int]),
    ({1.5: 1}, dict[float, int]),
    ({"a": {"b": [1, None, 1.5]}}, dict[str, Any]),
    ({"a": [1, "b"]}, dict[str, object]),
    (Page([{"a": 1}]), Page),
    (Bare(1, "x"), Bare),
    ({"a": [1]}, Mapping[str, Sequence[int]]),
    (Point(1), Point),
    ({"street": "s"}, Address),
    ({"street": "s", "number": 1}, Address),
    (ORDER, Order),
    ([ORDER, None], list[Order | None]),
    (Page([1]), Page[int]),
    (Page([Page([UID])]), Page[Page[UUID]]),
    (NumberedPage([dt.date(2026, 1, 1)]), NumberedPage[dt.date]),
    (Tally(1, Tally(2)), Tally),
    (Parcel(1.5, ("a",)), Parcel),
    (Trip([Point(1)]), Trip),
    (
        Account.model_validate({"number": UID, "opened": dt.date(2026, 1, 1), "inLimit": Decimal("1.5")}),
        Account,
    ),
    ([Account(number=UID, opened=dt.date(2026, 1, 1))], list[Account]),
    ({"k": Account(number=UID, opened=dt.date(2026, 1, 1))}, dict[str, Account | None]),
    (CustomerId(3), CustomerId),
    (3, Annotated[int, msgspec.Meta(ge=3)]),
    (pathlib.Path("/a/b"), pathlib.Path),
    (pathlib.PurePosixPath("a"), pathlib.PurePosixPath | None),
    (pathlib.Path("a"), pathlib.Path | int),
    (1 - 2.5j, complex),
    (1, int | float),
    (1.0, int | float),
    (1, int | str | None),
]


@pytest.mark.parametrize("value, annotation", EXAMPLES, ids=lambda each: str(each)[:40])
def test_a_value_of_a_declared_type_reads_back_as_itself(value: Any, annotation: Any) -> None:
    text, copy = recode(value, Decoder(annotation))

    assert copy == value
    assert type(copy) is type(value)
    assert Decoder(annotation).decode(text) == value
    assert encode(value) == text


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    """Equal, class for class."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


@settings(max_examples=80)
@given(plain)
def test_plain_json_needs_no_declared_type(value: Any) -> None:
    text, copy = recode(value, decoder_for(MISSING))

    assert same(copy, value)
    assert same(decoder_for(Any).decode(text), value)


texts = st.text(max_size=8)
moments = st.datetimes(timezones=st.none() | st.just(dt.UTC))
items = st.builds(Item, texts, st.decimals(allow_nan=False), st.sets(texts, max_size=3))
orders = st.recursive(
    st.builds(
        Order,
        st.uuids(),
        st.lists(items, max_size=2),
        moments,
        st.none() | st.sampled_from(Colour),
        st.none(),
    ),
    lambda inner: st.builds(Order, st.uuids(), st.just([]), moments, st.none(), inner),
    max_leaves=3,
)
CASES: list[tuple[st.SearchStrategy[Any], Any]] = [
    (orders, Order),
    (st.lists(st.sets(st.integers())), list[set[int]]),
    (st.dictionaries(st.integers(), st.binary()), dict[int, bytes]),
    (st.dictionaries(st.uuids(), st.timedeltas()), dict[UUID, dt.timedelta]),
    (
        st.tuples(st.dates(), st.times(), st.complex_numbers(allow_nan=False)),
        tuple[dt.date, dt.time, complex],
    ),
    (
        st.builds(Page, st.lists(st.builds(Parcel, st.floats(allow_nan=False, allow_infinity=False)))),
        Page[Parcel],
    ),
    (st.builds(Account, number=st.uuids(), opened=st.dates(), inLimit=st.decimals("-1e9", "1e9")), Account),
    (st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.none(), int | float | None),
]


@pytest.mark.parametrize("strategy, annotation", CASES, ids=lambda each: str(each)[:20])
def test_generated_values_read_back_as_themselves(strategy: st.SearchStrategy[Any], annotation: Any) -> None:
    @settings(max_examples=40)
    @given(strategy)
    def check(value: Any) -> None:
        _text, copy = recode(value, decoder_for(annotation))
        assert same(copy, value)

    check()


def test_a_time_zone_reads_back_as_the_same_moment_at_a_fixed_offset() -> None:
    """JSON holds an offset, not the name of a zone: the moment is kept, the zone's rules are not."""
    zone = pytest.importorskip("zoneinfo").ZoneInfo("Europe/Berlin")
    second_half_past_two = dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=zone)

    _text, copy = recode(second_half_past_two, decoder_for(dt.datetime))

    assert copy.timestamp() == second_half_past_two.timestamp()
    assert copy.utcoffset() == dt.timedelta(hours=1)


def test_a_payload_from_before_a_field_was_added_or_removed_is_still_read() -> None:
    assert Decoder(Page[int]).decode('{"items":[1],"gone":true}') == Page([1])


def test_numbers_of_any_size_and_doubled_keys_are_read_as_json_says() -> None:
    """A doubled key keeps its last value; a number past the range of float is refused rather than made infinite."""
    decoder = decoder_for(MISSING)

    assert decoder.decode("9007199254740993") == 2**53 + 1
    assert math.copysign(1, decoder.decode("-0.0")) == -1
    assert decoder.decode('{"a":1,"a":2}') == {"a": 2}
    assert recode(1, Decoder(float))[1] == 1.0


def test_decoders_are_built_once_for_an_annotation() -> None:
    assert decoder_for(list[int]) is decoder_for(list[int])
    assert decoder_for(Annotated[int, []]).decode("1") == 1, "an annotation that cannot be hashed works too"


def test_a_subclass_of_str_int_or_float_is_read_as_its_declared_class() -> None:
    class Name(str):
        __slots__ = ()

    class Size(float):
        __slots__ = ()

    assert type(recode(Name("a"), Decoder(Name))[1]) is Name
    assert type(recode(Name("a"), Decoder(str))[1]) is str
    assert recode([Size(1.5)], Decoder(list[float]))[1] == [1.5]
