"""`@flow_type`: a class whose fields are a flow's input and whose methods are its flow and its steps."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, overload

from ergon.core.codec.hooks import is_supported
from ergon.core.codec.records import record_style
from ergon.errors import UsageError
from ergon.flows.context import caller_place
from ergon.flows.flow import BoundFlow, Flow, FlowCall

if TYPE_CHECKING:
    from ergon.flows.children import ChildHandle

R = TypeVar("R")
T = TypeVar("T", bound=type)

MARK = "__ergon_flow_type__"


# A decorator cannot tell type checkers that a class is a flow type. What they can see is that it holds data in one of
# the ways that can be stored; a flow that nobody bound, a text or a number does not.


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


class _Attrs(Protocol):
    __attrs_attrs__: ClassVar[Any]


class _Struct(Protocol):
    __struct_fields__: ClassVar[tuple[str, ...]]


class _NamedTuple(Protocol):
    _fields: ClassVar[tuple[str, ...]]


class _Model(Protocol):
    model_config: ClassVar[Any]

    @classmethod
    def model_construct(cls, _fields_set: set[str] | None = None, **values: Any) -> Any: ...


class FlowType:
    """Base class for a `@flow_type` class whose flows use `self.invoke`: type checkers and editors know it then.

        @flow_type
        @dataclass
        class Checkout(FlowType):
            order: str

            @flow
            async def run(self) -> str:
                return await self.invoke(Shipping(self.order).ship.bind()).result()

    It has no fields and changes nothing else; the decorator gives `invoke` to classes without it as well.
    """

    __slots__ = ()

    @overload
    def invoke(
        self,
        child: FlowCall[R] | BoundFlow[[], R],
        *,
        id: str | None = None,
        queue: str | None = None,
        tags: Sequence[str] | None = None,
        detached: bool = False,
    ) -> ChildHandle[R]: ...
    @overload
    def invoke(
        self,
        child: FlowObject,
        *,
        id: str | None = None,
        queue: str | None = None,
        tags: Sequence[str] | None = None,
        detached: bool = False,
    ) -> ChildHandle[Any]: ...
    def invoke(
        self,
        child: Any,
        *,
        id: str | None = None,
        queue: str | None = None,
        tags: Sequence[str] | None = None,
        detached: bool = False,
    ) -> ChildHandle[Any]:
        """Start a child flow; `.result()` waits for its outcome. As `ergon.invoke(child)`, whose arguments it has."""
        from ergon.flows.children import start_child

        return start_child(
            flow_call_of(child), id=id, queue=queue, tags=tags, detached=detached, place=caller_place()
        )


FlowObject = FlowType | _Dataclass | _Attrs | _Struct | _NamedTuple | _Model | Enum
"""An object of a `@flow_type` class, as far as type checkers can tell."""
FlowSource = Flow[..., Any] | BoundFlow[..., Any] | type
"""What a worker can register: flows, and `@flow_type` classes."""


def flow_type(cls: T) -> T:
    """Mark a dataclass (or attrs, pydantic, msgspec class) as a flow with its data.

    Its `@flow` methods are flows whose input is the object; its `@step` methods are their steps. The class also
    gets `invoke(child)`, which starts a child flow: `await self.invoke(Shipping(order)).result()`. A decorator cannot
    tell type checkers of that: inherit from `FlowType`, or call `ergon.invoke(child)`, which does the same.
    A pydantic model has to be told which of its attributes are no fields: `model_config =
    ConfigDict(ignored_types=(Flow, Step))`.

    Raises `UsageError` for a class without a flow, and for one whose objects can never be stored. A class without any
    fields may become a dataclass by a decorator above this one; when it does not, the worker refuses to register it.
    """
    if not isinstance(cls, type):
        raise UsageError(f"@flow_type is for classes, not {cls!r}; decorate a function with @flow")
    if not flows_of(cls):
        raise UsageError(f"@flow_type class `{cls.__name__}` has no method decorated with @flow")
    if has_no_fields(cls) and _is_made_by_hand(cls):
        raise UsageError(without_fields(cls))
    setattr(cls, MARK, True)
    if not hasattr(cls, "invoke"):
        cls.invoke = FlowType.invoke  # type: ignore[attr-defined]
    return cls


def flows_of(cls: type) -> list[Flow[..., Any]]:
    """The flows among a class's methods, inherited ones included."""
    # Not by `getattr`: it would run properties of the class's own class, such as pydantic's deprecated ones.
    attributes: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        attributes.update(vars(base))
    return [found for found in attributes.values() if isinstance(found, Flow)]


def has_no_fields(cls: type) -> bool:
    """Tell whether a class declares no fields in a way that can be stored: the objects of it cannot be."""
    return record_style(cls) is None and not is_supported(cls) and not issubclass(cls, Enum)


def without_fields(cls: type) -> str:
    """What to say of such a class."""
    return (
        f"@flow_type class `{cls.__name__}` declares no fields, so its objects, which are a flow's input, cannot be "
        "stored. Make it a dataclass (or an attrs, pydantic or msgspec class) with a field for each value that its "
        "flow needs"
    )


def _is_made_by_hand(cls: type) -> bool:
    """Tell whether no @dataclass above could add anything: there is an `__init__` of its own, and nothing annotated."""
    own = [base for base in cls.__mro__ if base is not object]
    return any("__init__" in vars(base) for base in own) and not any(_is_annotated(base) for base in own)


def _is_annotated(cls: type) -> bool:
    """Tell whether a class annotates anything. Nothing is evaluated: names may exist for type checkers only."""
    return any(vars(cls).get(name) for name in ("__annotations__", "__annotate_func__", "__annotate__"))


def flow_call_of(target: Any) -> FlowCall[Any]:
    """What to start: a `FlowCall`, or the only flow of a `@flow_type` object."""
    if isinstance(target, FlowCall):
        return target
    if isinstance(target, BoundFlow):
        return target.bind()
    if isinstance(target, Flow):
        raise UsageError(
            f"flow `{target.name}` has no arguments yet; give it some: `{target.name}.bind(...)`"
        )
    if not getattr(type(target), MARK, False):
        name = getattr(target, "__name__", None)  # of a function, and of its coroutine when it was called
        raise UsageError(
            f"{type(target).__name__}{f' `{name}`' if name else ''} is neither a flow bound to its arguments "
            "(`my_flow.bind(...)`) nor an object of a @flow_type class"
        )
    found = flows_of(type(target))
    if len(found) != 1:
        names = ", ".join(flow.name for flow in found)
        raise UsageError(
            f"{type(target).__name__} has {len(found)} flows ({names}); say which: `obj.method.bind()`"
        )
    return _owned(found[0], type(target)).flow_call(target)


class _owned:  # noqa: N801  # reads as a word where it is used
    """A flow method as a flow of the object's own class."""

    def __init__(self, flow: Flow[..., Any], cls: type) -> None:
        self._flow, self._cls = flow, cls

    def flow_call(self, target: Any) -> FlowCall[Any]:
        return BoundFlow(self._flow, target).bind()
