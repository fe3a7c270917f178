"""Annotations are found however they are written, and a name that cannot be found is said."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import pytest

from ergon.core.codec import MISSING, Hints, hints_of
from ergon.errors import UsageError

if TYPE_CHECKING:
    from decimal import Decimal


async def charge(order: Order, *rest: int, note: str | None = None, **more: bytes) -> Receipt:
    raise NotImplementedError


def early(order: LaterStill) -> None: ...


def hidden(price: list[Decimal]) -> None: ...


def misspelt(order: int) -> dict[str, Reciept]:  # type: ignore[name-defined]  # noqa: F821
    raise NotImplementedError


def bare(a, b=1): ...


@dataclass
class Order:
    id: str


@dataclass
class Receipt:
    id: str


def test_strings_are_resolved_when_first_asked_for() -> None:
    """`Order` is defined below the function that mentions it."""
    hints = hints_of(charge)

    assert hints.params == {"order": Order, "rest": int, "note": str | None, "more": bytes}
    assert hints.result is Receipt
    assert hints.of("missing") is MISSING


def test_no_annotation_is_not_the_same_as_none() -> None:
    assert hints_of(bare).result is MISSING
    assert hints_of(bare).params == {}
    assert hints_of(Service.call).result is type(None)


class Service:
    def call(self, order: Order) -> None: ...

    def __call__(self, order: Order) -> Receipt:
        raise NotImplementedError


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def test_wrappers_methods_partials_and_callable_objects_show_what_is_inside() -> None:
    assert hints_of(wrapped(charge)).result is Receipt
    assert hints_of(functools.partial(wrapped(charge), note="x")).params["order"] is Order
    assert hints_of(Service().call).params == {"order": Order}
    assert hints_of(Service()).result is Receipt


@pytest.mark.parametrize(
    "function", [print, max, "a".upper, functools.partial(pow, 2), operator.itemgetter(0)]
)
def test_what_is_not_written_in_python_has_no_annotations(function: Callable[..., Any]) -> None:
    assert hints_of(function) == Hints({}, MISSING)


def test_a_class_gives_objects_of_itself() -> None:
    assert hints_of(Service).result is Service
    assert hints_of(int).result is int


def test_metadata_is_kept() -> None:
    def function(n: Annotated[int, "positive"]) -> Annotated[str, "x"]:
        return "x"

    assert hints_of(function).params["n"] == Annotated[int, "positive"]


def test_a_class_of_the_enclosing_function_is_found_where_it_can_be() -> None:
    @dataclass
    class Local:
        n: int

    def by_closure(n: Local) -> Local:
        return Local(n.n)

    def by_name(n: Local) -> None: ...

    assert hints_of(by_closure).result is Local
    assert hints_of(by_name, {"Local": Local}).params["n"] is Local
    with pytest.raises(UsageError, match="`Local`"):
        hints_of(by_name)


@pytest.mark.parametrize(
    "function, name, place",
    [
        (early, "LaterStill", "parameter `order`"),
        (hidden, "Decimal", "parameter `price`"),
        (misspelt, "Reciept", "result"),
    ],
)
def test_an_unknown_name_is_said_with_its_place(function: Callable[..., Any], name: str, place: str) -> None:
    with pytest.raises(UsageError) as caught:
        hints_of(function)

    message = str(caught.value)
    assert f"`{name}`" in message
    assert place in message
    assert function.__name__ in message
    assert "TYPE_CHECKING" in message


def test_an_annotation_that_is_no_expression_is_said() -> None:
    def function(n): ...

    function.__annotations__["n"] = "not an expression"

    with pytest.raises(UsageError, match="not an expression"):
        hints_of(function)


if TYPE_CHECKING:

    class LaterStill: ...
