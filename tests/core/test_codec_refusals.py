"""What cannot be kept is refused at once, with the path to it, and without showing the value."""

from __future__ import annotations

import collections
import datetime as dt
import enum
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import InitVar, dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest

from ergon import flow
from ergon.core.codec import MISSING, PAYLOAD_BYTES_MAX, Decoder, decoder_for, encode, recode
from ergon.errors import DecodingError, EncodingError, UsageError

SECRET = "sk-123"


class Untouchable:
    """Raises whenever anyone looks at it closely."""

    def __repr__(self) -> str:
        raise RuntimeError(SECRET)

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError(SECRET)

    def __reduce__(self) -> Any:
        raise SystemExit(SECRET)

    __hash__ = object.__hash__


@dataclass
class Item:
    price: Any
    name: str = SECRET


@dataclass
class Cart:
    items: list[Item]


class Model(pydantic.BaseModel):
    n: int


class Pair(NamedTuple):
    a: Any
    b: Any


UNDECLARED = object()


def refusal(value: object, annotation: object = UNDECLARED) -> EncodingError:
    with pytest.raises(EncodingError) as caught:
        if annotation is UNDECLARED:
            encode(value)
        else:
            recode(value, decoder_for(annotation))
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None, (
        "msgspec's error shows the value"
    )
    where = caught.value.path
    assert str(caught.value).startswith(f"{where}: ") == (where != "$"), (
        "a value as a whole has no place to name"
    )
    return caught.value


nan, inf = float("nan"), float("inf")


@pytest.mark.parametrize(
    "value, path",
    [
        (Untouchable(), "$"),
        (Cart([Item(1), Item(2), Item(3), Item(Untouchable())]), "$.items[3].price"),
        ({"a": 1, SECRET: [Untouchable()]}, "$[key 1][0]"),
        ({4915112345678: Untouchable()}, "$[key 0]"),
        ({UUID(int=1): Untouchable()}, "$[key 0]"),
        ([{1, threading.Lock}], "$[0][*]"),
        (Pair(1, print), "$.b"),
        ([Model.model_construct(n=Untouchable())], "$[0].n"),
        ({(1, 2): 3}, "$"),
        ({"x": {None: 1}}, "$[key 0]"),
        (Item("\ud800"), "$.price"),
        ({"\ud800": 1}, "$"),
        ([10**5000], "$[0]"),
        ([nan], "$[0]"),
        (Cart([Item(None), Item(-inf)]), "$.items[1].price"),
        ({"a": Pair(None, (1.5, inf))}, "$[key 0].b[1]"),
        ([Model.model_construct(n=nan)], "$[0].n"),
        ([complex, type], "$[0]"),
        pytest.param([object()], "$[0]", id="list-of-object"),
        ([iter([])], "$[0]"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_the_first_part_without_a_json_form_is_named(value: object, path: str) -> None:
    assert refusal(value).path == path


def test_a_value_that_contains_itself_is_refused() -> None:
    """Item 52: a cycle must end in a message, not in a crash of the interpreter."""
    ring: list[Any] = [1]
    ring.append({"ring": ring})
    item = Item(None)
    item.price = [item]

    assert refusal(ring).path == "$[1][key 0]"
    assert refusal(item).path == "$.price[0]"
    assert refusal(ring, MISSING).path == "$[1][key 0]"
    assert refusal([item], list[Item]).path.startswith("$[0].price")


def test_a_value_nested_too_deeply_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    assert "deep" in str(refusal(deep))
    assert "deep" in str(refusal(deep, MISSING))
    with pytest.raises(DecodingError, match="deep"):
        decoder_for(MISSING).decode("[" * 100_000 + "]" * 100_000)


def test_the_same_part_twice_is_no_cycle() -> None:
    part = {"a": 1}

    assert recode([part, part], decoder_for(MISSING))[1] == [part, part]


@pytest.mark.parametrize(
    "value, path",
    [
        (Item(1), "$"),
        ({"a": [(1,)]}, "$[key 0][0]"),
        ({"a": {1}}, "$[key 0]"),
        ([UUID(int=1)], "$[0]"),
        (Decimal(1), "$"),
        (b"", "$"),
        (dt.date(2026, 1, 1), "$"),
        (nan, "$"),
        ({"a": inf}, "$[key 0]"),
        ({"a": {1: 2}}, "$[key 0]"),
        (collections.OrderedDict(a=1), "$"),
        ([enum.StrEnum("E", ["A"]).A], "$[0]"),  # type: ignore[attr-defined]
        ([type("Name", (str,), {})("a")], "$[0]"),
        (Model(n=1), "$"),
        pytest.param(object(), "$", id="object"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("annotation", [MISSING, Any, object])
def test_without_a_declared_type_only_plain_json_passes(value: object, path: str, annotation: Any) -> None:
    assert refusal(value, annotation).path == path


async def _unawaited() -> None: ...


async def _asynchronous() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    "make, advice",
    [
        (lambda: print, "is code and has no JSON form"),
        (lambda: lambda: 1, "is code and has no JSON form"),
        (_asynchronous, "is code and has no JSON form"),
        (_unawaited, "await it, and use what it gives"),
        (lambda: (n for n in (1, 2)), "use a list of what it gives"),
        (object, "use a dataclass, or the plain data"),
    ],
    ids=["builtin", "lambda", "asynchronous generator", "coroutine", "generator", "object"],
)
@pytest.mark.parametrize("annotation", [UNDECLARED, MISSING, Any])
def test_what_no_annotation_would_help_is_not_told_to_be_annotated(
    make: Callable[[], object], advice: str, annotation: Any
) -> None:
    value = make()

    message = str(refusal([value], annotation))

    assert message.startswith("$[0]: ")
    assert advice in message
    assert "annotate" not in message
    if isinstance(value, Coroutine):
        value.close()


def test_the_way_out_is_to_annotate() -> None:
    assert "annotate the return type" in str(refusal((1,), MISSING))
    assert "tuple" in str(refusal((1,), MISSING))
    assert refusal({"a": {"b": (1,)}}, dict[str, Any]).path == "$[key 0][key 0]", (
        "a part declared as Any counts as well"
    )
    assert refusal([Item({1})], list[Item]).path == "$[0].price"


class Address(TypedDict):
    street: str


@dataclass
class Puppy(Item):
    age: int = 1


@dataclass
class Checked:
    name: str

    def __post_init__(self) -> None:
        if self.name == SECRET:
            raise KeyError(self.name)


class Colour(enum.Enum):
    RED = "red"


class Account(pydantic.BaseModel):
    number: int

    @pydantic.field_validator("number")
    @classmethod
    def check(cls, value: int) -> int:
        if value < 0:
            raise ValueError(SECRET)
        return value


@pytest.mark.parametrize(
    "value, annotation, path, says",
    [
        ("x", int, "$", "expected `int`, got `str`"),
        (True, int, "$", "expected `int`, got `bool`"),
        (5, None, "$", "expected `null`, got `int`"),
        (None, int, "$", "expected `int`, got `null`"),
        ([1, SECRET], list[int], "$[1]", "expected `int`, got `str`"),
        (nan, float | None, "$", "NaN"),
        (nan, int | None, "$", "NaN"),
        ([None, nan], list[float | None], "$[1]", "NaN"),
        (SECRET, Colour, "$", "not one of the values"),
        (SECRET, UUID, "$", "UUID"),
        (SECRET, complex, "$", "complex|own check"),
        (Checked(""), int, "$", "expected `int`"),
        ({1: 2}, dict[str, int], "$", "key"),
        ({"1": 2}, dict[int, int], "$", "key"),
        (Puppy(1), Item, "$", "Puppy was given where .*Item is declared"),
        ([Puppy(1)], list[Item], "$[0]", "Puppy"),
        ({"street": "a", "more": 1}, Address, "$", "fields would be lost"),
        (Account.model_construct(number=SECRET), Account, "$", r"`\.number`"),
        ([Account.model_construct(number=-1)], list[Account], "$[0]", r"`\.number`"),
        (
            dt.datetime(1900, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=1172))),
            dt.datetime,
            "$",
            "seconds",
        ),
        (Item(1), Model, "$", "Item"),
    ],
)
def test_a_value_that_does_not_fit_its_declared_type_is_refused(
    value: object, annotation: Any, path: str, says: str
) -> None:
    import re

    error = refusal(value, annotation)

    assert error.path == path
    assert re.search(says, str(error)), str(error)


def test_a_class_that_refuses_its_own_value_does_not_spill_it() -> None:
    value = Checked("")
    value.name = SECRET

    assert "own check (KeyError)" in str(refusal([value], list[Checked]))


def test_a_property_that_raises_does_not_break_the_message() -> None:
    class Broken(pydantic.BaseModel):
        n: int

        @pydantic.model_serializer
        def write(self) -> Any:
            raise RuntimeError(SECRET)

    assert refusal([Broken(n=1)]).path == "$"


@pytest.mark.parametrize(
    "annotation",
    [type, Callable, collections.deque[int], collections.OrderedDict, Iterable[int], range, dict[Item, int],
     dict[int | str, int], "Item", type[int], threading.Thread, list[threading.Thread],
     enum.Enum("E", {"A": object()})],
    ids=str,
)  # fmt: skip
def test_a_type_that_json_cannot_give_back_is_refused_before_any_value(annotation: Any) -> None:
    with pytest.raises(UsageError):
        Decoder(annotation)


def test_a_field_that_is_not_kept_is_refused() -> None:
    @dataclass
    class Half:
        a: int
        seed: InitVar[int] = 0
        b: int = field(default=0)

    with pytest.raises(UsageError, match="InitVar `seed`"):
        Decoder(Half)


@dataclass
class Dangling:
    field: Nowhere  # type: ignore[name-defined]  # noqa: F821


def test_a_field_whose_type_is_unknown_is_named() -> None:
    with pytest.raises(UsageError, match=r"Dangling.*`Nowhere`"):
        Decoder(list[Dangling])


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"a":',
        "NaN",
        "nan",
        "1e400",
        "\ufeff1",
        "1 2",
        "{'a':1}",
        '"\\ud800"',
        "undefined",
        "gASVDgAAAA==",
        "\x80\x04",
    ],
    ids=repr,
)
def test_text_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(DecodingError) as caught:
        decoder_for(MISSING).decode(text)
    assert isinstance(caught.value, EncodingError)


@pytest.mark.parametrize("raw", [b"\xff\xfe1\x00", b'"\xff"', b"\x80\x04\x95\x0e"])
def test_bytes_that_are_not_utf8_json_are_refused(raw: bytes) -> None:
    with pytest.raises(DecodingError):
        decoder_for(str).decode(raw)


def test_objects_that_look_like_instructions_stay_data() -> None:
    """Item 40: nothing in a payload names code."""
    text = '{"__type__":"os.system","__reduce__":["rm"],"__class__":"x"}'

    assert decoder_for(MISSING).decode(text) == {
        "__type__": "os.system",
        "__reduce__": ["rm"],
        "__class__": "x",
    }
    assert decoder_for(Item).decode('{"price":1,"__class__":"os.system"}') == Item(1)


def test_a_payload_is_at_most_64_mib() -> None:
    assert PAYLOAD_BYTES_MAX == 64 * 1024 * 1024
    assert len(encode("a" * (PAYLOAD_BYTES_MAX - 2))) == PAYLOAD_BYTES_MAX
    assert "64" not in str(refusal("a" * PAYLOAD_BYTES_MAX)).split("at most")[0]
    assert "Store it elsewhere" in str(refusal("€" * (PAYLOAD_BYTES_MAX // 3)))


def test_pydantic_is_never_imported_by_the_codec() -> None:
    """It is an optional dependency: a model exists only where the user's code imported it."""
    import subprocess

    code = (
        "import sys, ergon.core.codec as c; c.encode({'a': 1}); c.decoder_for(dict[str, int])\n"
        "assert 'pydantic' not in sys.modules and 'attrs' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


class Trip(TypedDict):
    stops: list[Address | None]
    prices: dict[str, Any]


class Shelf(pydantic.BaseModel):
    model_config = {"extra": "forbid"}
    prices: dict[str, int] = {}
    models: dict[str, Model | None] = {}


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    n: int = 0


@pytest.mark.parametrize(
    "value, annotation, path",
    [
        ({"stops": [], "prices": {"a": 1, SECRET: {1}}}, Trip, "$.prices[key 1]"),
        ({"stops": [None, {"street": Untouchable()}], "prices": {}}, Trip, "$.stops[1].street"),
        ({"stops": [None, {"street": nan}], "prices": {}}, Trip, "$.stops[1].street"),
        ({"a": 1, SECRET: Item({1})}, dict[str, Item | int], "$[key 1].price"),
        ({SECRET: {"street": Untouchable()}}, dict[str, Address], "$[key 0].street"),
        ({"a": Cart([]), SECRET: 5}, dict[str, Cart | Checked], "$[key 1]"),
        ({SECRET: "x"}, dict[str, int], "$[...]"),
        ({SECRET: 1}, Strict, "$"),
        ({SECRET: 1, "items": []}, Strict | Cart, "$"),
    ],
)
def test_a_key_is_named_only_where_it_is_declared(value: object, annotation: Any, path: str) -> None:
    """A key may be a token or an e-mail address: its place among the keys leads there as well."""
    assert refusal(value, annotation).path == path


@pytest.mark.parametrize(
    "text, place",
    [
        (f'{{"prices": {{"a": 1, "{SECRET}": "x"}}}}', ".prices[key 1]"),
        (f'{{"models": {{"{SECRET}": {{"n": "x"}}}}}}', ".models[key 0].n"),
        (f'{{"{SECRET}": 1}}', "[key 0]"),
    ],
)
def test_a_model_names_no_key_that_it_does_not_declare(text: str, place: str) -> None:
    with pytest.raises(DecodingError) as caught:
        decoder_for(Shelf).decode(text)

    assert f"`{place}`" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("text", [f'{{"{SECRET}": 1}}', f'{{"a": {{"{SECRET}": 1}}}}'])
@pytest.mark.parametrize("annotation", [Strict, dict[str, Strict], Strict | list[int]])
def test_an_unknown_key_is_not_quoted(text: str, annotation: Any) -> None:
    with pytest.raises(DecodingError) as caught:
        decoder_for(annotation).decode(text)

    assert SECRET not in str(caught.value)


def test_an_argument_is_named_and_the_keys_in_it_are_not() -> None:
    """Parameters are declared; so is what their annotations say."""

    @flow
    async def ship(address: Address, prices: dict[str, Any], *, note: object = None) -> None: ...

    for arguments, path in [
        (({"street": Untouchable()}, {}), "$.address.street"),
        (({"street": "a"}, {"a": 1, SECRET: [Untouchable()]}), "$.prices[key 1][0]"),
        (({"street": "a"}, {SECRET: nan}), "$.prices[key 0]"),
    ]:
        with pytest.raises(EncodingError) as caught:
            ship.bind(*arguments)  # type: ignore[arg-type]
        assert caught.value.path == path
        assert SECRET not in str(caught.value)
    with pytest.raises(EncodingError) as caught:
        ship.bind({"street": "a"}, {}, note=Untouchable())
    assert caught.value.path == "$.note"


@pytest.mark.parametrize("value", [{"\ud800": 1}, {"a": {SECRET: 1, f"{SECRET}\udcff": 2}}])
def test_a_key_that_is_not_text_is_refused_as_what_it_is_and_not_for_its_type(value: object) -> None:
    told = str(refusal(value, MISSING))

    assert "a key that is a str with lone surrogates is not text, so it has no JSON form" in told
    assert "use str" not in told
    assert SECRET not in told
