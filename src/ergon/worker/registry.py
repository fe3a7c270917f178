"""Which flows a worker has code for, by the names in the log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ergon.errors import DuplicateRegistration, UsageError
from ergon.flows.flow import BoundFlow, Flow
from ergon.flows.types import FlowSource, flows_of, has_no_fields, without_fields


class FlowRegistry:
    """Flows by name; one name, one flow."""

    def __init__(self, flows: Iterable[FlowSource] = ()) -> None:
        self._flows: dict[str, Flow[..., Any]] = {}
        for flow in flows:
            self.add(flow)

    def add(self, target: FlowSource) -> None:
        """Add a flow, or all flows of a `@flow_type` class. The same one twice is fine.

        Raises `DuplicateRegistration` when another flow has the name, `UsageError` for what is no flow and for a class
        whose objects cannot be stored.
        """
        for flow in _flows_in(target):
            known = self._flows.get(flow.name)
            if known is not None and known is not flow and known.function is not flow.function:
                raise DuplicateRegistration(
                    f"two flows are called `{flow.name}`: {_where(known)} and {_where(flow)}. A stored flow could "
                    "resume in the wrong one; give one of them another name with @flow(name=...)"
                )
            self._flows[flow.name] = flow

    def __getitem__(self, name: str) -> Flow[..., Any]:
        return self._flows[name]  # a worker claims no flow whose name is not here

    @property
    def timeouts(self) -> dict[str, float]:
        """The declared timeouts in seconds, of the flows that have one."""
        return {
            name: flow.options.timeout
            for name, flow in self._flows.items()
            if flow.options.timeout is not None
        }

    @property
    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(sorted(self._flows))


def _flows_in(target: Any) -> list[Flow[..., Any]]:
    if isinstance(target, Flow):
        return [target]
    if isinstance(target, BoundFlow):
        return [target.flow]
    if isinstance(target, type) and (found := flows_of(target)):
        if has_no_fields(target):
            raise UsageError(without_fields(target))
        return found
    raise UsageError(
        f"{target!r} is neither a function decorated with @flow nor a @flow_type class, so it cannot be registered"
    )


def _where(flow: Flow[..., Any]) -> str:
    code = flow.function.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"
