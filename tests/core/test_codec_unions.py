"""Unions of several classes: told apart by their fields, or refused before any value is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ergon.core.codec import Decoder, decoder_for, recode
from ergon.errors import DecodingError, EncodingError, UsageError

T = TypeVar("T")


@dataclass
class Card:
    number: str
    holder: str = ""


@dataclass
class Transfer:
    iban: str


@dataclass
class Cat:
    name: str


@dataclass
class Dog:
    name: str
    breed: str


@dataclass
class Parrot:
    name: str
    words: list[str] = field(default_factory=list)


@dataclass
class Circle:
    size: float
    kind: Literal["circle"] = "circle"


@dataclass
class Square:
    size: float
    kind: Literal["square"] = "square"


class Added(msgspec.Struct, tag=True):
    item: str


class Removed(msgspec.Struct, tag=True):
    item: str


class Note(pydantic.BaseModel):
    text: str


class Photo(pydantic.BaseModel):
    pixels: int


@dataclass
class Approved:
    pass


@dataclass
class Rejected:
    reason: str


@dataclass(frozen=True, slots=True)
class Payment:
    id: UUID
    by: Card | Transfer
    pets: list[Cat | Dog] = field(default_factory=list)
    refund: Payment | None = None
    checked: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "checked", True)


@dataclass
class Box(Generic[T]):
    inside: T


@attrs.define
class Shipment:
    by: Card | Transfer
    stops: list[int] = attrs.field(factory=list)
    count: int = attrs.field(default=attrs.Factory(lambda self: len(self.stops), takes_self=True))


class Ledger(msgspec.Struct, rename="camel"):
    last_entry: Card | Transfer | None
    entry_count: int = 0


class Draft(TypedDict):
    by: Card | Transfer
    note: NotRequired[Cat | Dog]


class Step(NamedTuple):
    by: Card | Transfer
    number: int = 1


UID = UUID(int=1)
CARD, TRANSFER, CAT, DOG = Card("1"), Transfer("x"), Cat("a"), Dog("a", "b")

EXAMPLES: list[tuple[Any, Any]] = [
    (CARD, Card | Transfer),
    (TRANSFER, Card | Transfer | None),
    (None, Card | Transfer | None),
    (CAT, Cat | Dog),
    (DOG, Cat | Dog),
    (Approved(), Approved | Rejected),
    (Rejected("no"), Approved | Rejected),
    (Circle(1.0), Circle | Square),
    (Square(1.0), Circle | Square),
    (Added("a"), Added | Removed),
    (Removed("a"), Removed | Cat),
    (Note(text="a"), Note | Photo),
    (Photo(pixels=1), Note | Photo | Card),
    (3, Note | Photo | int),
    (1, Card | Transfer | int | float | str | None),
    (1.0, Card | Transfer | int | float | str | None),
    ([CARD, TRANSFER, None], list[Card | Transfer | None]),
    ({"a": CARD}, dict[str, Card | Transfer]),
    ({UID: (CARD,)}, dict[UUID, tuple[Card | Transfer, ...]]),
    ((1, DOG), tuple[int, Cat | Dog]),
    (Payment(UID, TRANSFER, [CAT, DOG], Payment(UID, CARD)), Payment),
    ([Payment(UID, CARD)], list[Payment | None]),
    (Box(CARD), Box[Card | Transfer]),
    (Box([Box(DOG)]), Box[list[Box[Cat | Dog]]]),
    (Shipment(TRANSFER, [1, 2]), Shipment),
    (Ledger(CARD, 2), Ledger),
    ({"by": CARD}, Draft),
    ({"by": CARD, "note": DOG}, Draft),
    (Step(TRANSFER, 4), Step),
]


@pytest.mark.parametrize("value, annotation", EXAMPLES, ids=lambda each: str(each)[:40])
def test_a_member_of_a_union_reads_back_as_its_own_class(value: Any, annotation: Any) -> None:
    text, copy = recode(value, decoder_for(annotation))

    assert copy == value
    assert type(copy) is type(value)
    assert Decoder(annotation).decode(text) == value


@settings(max_examples=60)
@given(
    st.lists(
        st.builds(Card, st.text(), st.text()) | st.builds(Transfer, st.text()) | st.builds(Cat, st.text())
        | st.builds(Dog, st.text(), st.text())
    )
)  # fmt: skip
def test_any_mix_of_members_reads_back_as_itself(value: list[Any]) -> None:
    assert recode(value, decoder_for(list[Card | Transfer | Cat | Dog]))[1] == value


@pytest.mark.parametrize(
    "annotation",
    [
        Cat | Parrot,
        list[Cat | Parrot],
        dict[str, Parrot | Cat | None],
        Box[Cat | Parrot],
        Card | Box[int] | Box[str],
    ],
    ids=str,
)
def test_classes_that_their_fields_do_not_tell_apart_are_refused_with_a_way_out(annotation: Any) -> None:
    """A field with a default tells nothing: payloads from before it was added lack it."""
    with pytest.raises(UsageError, match=r"cannot be told apart.*Literal\[.*tag=True"):
        Decoder(annotation)


@pytest.mark.parametrize(
    "annotation",
    [
        str | UUID,
        list[int] | set[int],
        Card | dict[str, int],
        Cat | Dog | dict[str, int],
        Step | list[int],
        str | bytes,
    ],
    ids=str,
)
def test_members_that_json_writes_alike_are_refused(annotation: Any) -> None:
    with pytest.raises(UsageError, match="cannot be told apart"):
        Decoder(annotation)


def test_the_member_whose_fields_are_all_known_wins() -> None:
    decoder = Decoder(Cat | Dog)

    assert decoder.decode('{"name":"a"}') == CAT
    assert decoder.decode('{"name":"a","breed":"b","later":1}') == DOG
    assert Decoder(Card | Transfer).decode('{"number":"1"}') == Card("1"), "written before `holder` was added"


@pytest.mark.parametrize(
    "text", ['{"other":1}', '{"number":"1","iban":"x"}', "{}", "[]", "1", '{"number":1}']
)
def test_an_object_of_no_member_or_of_several_is_refused_rather_than_guessed(text: str) -> None:
    with pytest.raises(DecodingError):
        Decoder(Card | Transfer).decode(text)


@pytest.mark.parametrize("text", ['{"size":1.0,"kind":"oval"}', '{"size":1.0,"kind":1}'])
def test_an_unknown_tag_is_refused(text: str) -> None:
    with pytest.raises(DecodingError):
        Decoder(Circle | Square).decode(text)


def test_the_path_leads_to_the_part_that_does_not_fit() -> None:
    with pytest.raises(DecodingError) as caught:
        Decoder(Payment).decode(f'{{"id":"{UID}","by":{{"iban":"x"}},"pets":[{{"name":"a"}},{{"name":5}}]}}')
    assert caught.value.path == "$.pets[1].name"

    with pytest.raises(EncodingError) as refused:
        recode(Payment(UID, CARD, [CAT, TRANSFER]), Decoder(Payment))  # type: ignore[list-item]
    assert refused.value.path == "$.pets[1]"
    assert "Cat | " in str(refused.value)


def test_a_class_may_contain_unions_of_itself() -> None:
    @dataclass
    class Leaf:
        value: int

    assert Decoder(Payment).decode(f'{{"id":"{UID}","by":{{"iban":"x"}}}}').checked, "__post_init__ ran"
    assert recode([Leaf(1), CARD], Decoder(list[Leaf | Card]))[1] == [Leaf(1), CARD]
