"""`@flow_type`: a class whose fields are a flow's input and whose methods are its flow and its steps."""

from __future__ import annotations

from typing import Any, TypeVar

from ergon.errors import UsageError
from ergon.flows.flow import BoundFlow, Flow, FlowCall

T = TypeVar("T", bound=type)

MARK = "__ergon_flow_type__"


def flow_type(cls: T) -> T:
    """Mark a dataclass (or attrs, pydantic, msgspec class) as a flow with its data.

    Its `@flow` methods are flows whose input is the object; its `@step` methods are their steps. The class also
    gets `invoke(child)`, which starts a child flow: `await self.invoke(Shipping(order)).result()`.
    """
    if not flows_of(cls):
        raise UsageError(f"@flow_type class `{cls.__name__}` has no method decorated with @flow")
    setattr(cls, MARK, True)
    if not hasattr(cls, "invoke"):
        cls.invoke = _invoke  # type: ignore[attr-defined]
    return cls


def _invoke(_self: object, child: Any, *, id: str | None = None, detached: bool = False) -> Any:
    """Start a child flow; `.result()` waits for its outcome."""
    from ergon.flows.children import invoke
    from ergon.flows.context import caller_place

    return invoke(child, id=id, detached=detached, place=caller_place())


def flows_of(cls: type) -> list[Flow[..., Any]]:
    """The flows among a class's methods, inherited ones included."""
    names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base))
    return [found for name in names if isinstance(found := getattr(cls, name, None), Flow)]


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
        raise UsageError(
            f"{type(target).__name__} is neither a flow bound to its arguments (`my_flow.bind(...)`) nor an object of "
            "a @flow_type class"
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
