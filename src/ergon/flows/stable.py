"""Values that are the same on every replay: time, chance, identity, log lines, and which branch a patch took."""

from __future__ import annotations

import logging
import random as random_module
import uuid as uuid_module
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

from ergon.core.names import check_name
from ergon.errors import NotInFlow
from ergon.flows.context import caller_place, current_machine, need_machine, step_context


def now() -> datetime:
    """Flow time: when the last thing this flow saw happened, in UTC. In a step: the log's clock.

    Raises `NotInFlow` elsewhere.
    """
    machine = current_machine()
    if machine is not None:
        return datetime.fromtimestamp(machine.loop.time(), UTC)
    context = step_context.get()
    if context is None:
        raise NotInFlow("now() works only inside a flow or a step; elsewhere use datetime.now(UTC).")
    return datetime.fromtimestamp(context.now(), UTC)


def rng() -> random_module.Random:
    """This flow's random generator: any distribution, the same on every replay.

    Its seed is the flow's id alone: a flow of that id in another log draws the same, and whoever knows the id can
    compute it all. So it is not for tokens, passwords and other secrets: draw those in a step, with `secrets`.
    Raises `NotInFlow` outside a flow, in a step too.
    """
    return need_machine("rng()").random()


def random() -> float:
    """A random number in [0, 1), the same on every replay.

    Drawn from `rng()`, by the flow's id alone: not for secrets. Raises `NotInFlow` outside a flow, in a step too.
    """
    return need_machine("random()").random().random()


def uuid4() -> uuid_module.UUID:
    """A random UUID, the same on every replay and different for every flow id.

    Drawn from `rng()`, by the flow's id alone: a flow of the same id in another log gets the same ones, and whoever
    knows the id can compute them. So it is no token and no secret: make those in a step, with `secrets` or
    `uuid.uuid4`. Raises `NotInFlow` outside a flow, in a step too.
    """
    return uuid_module.UUID(int=need_machine("uuid4()").random().getrandbits(128), version=4)


def flow_id() -> str:
    """The id of the flow that runs here, in a flow or a step. Raises `NotInFlow` elsewhere."""
    machine = current_machine()
    if machine is not None:
        return machine.flow_id
    context = step_context.get()
    if context is None:
        raise NotInFlow("flow_id() works only inside a flow or a step.")
    return context.flow_id


def idempotency_key() -> str:
    """In a step: a key to hand to outside systems, the same for every attempt of this call and of no other.

    Raises `NotInFlow` elsewhere.
    """
    context = step_context.get()
    if context is None or current_machine() is not None:
        raise NotInFlow("idempotency_key() works only inside a step: each step call has one.")
    return context.idempotency_key


def attempt() -> int:
    """In a step: which attempt this is, from 1. Raises `NotInFlow` elsewhere."""
    context = step_context.get()
    if context is None or current_machine() is not None:
        raise NotInFlow("attempt() works only inside a step.")
    return context.attempt


def is_replaying() -> bool:
    """True while the flow repeats what it did before. For logging and metrics; never branch on it."""
    machine = current_machine()
    return machine is not None and (machine.replaying or machine.muted)


def patched(name: str) -> bool:
    """Guard a change to a flow's code.

    True for flows that reach this line for the first time with the new code, False for those that passed it before.

        if patched("check-stock-first"):
            await check_stock(order)

    When no flow started before the change is left, replace it by `deprecate_patch(name)`, later by nothing.
    Raises `NotInFlow` outside a flow, in a step too.
    """
    check_name("patch name", name)
    return need_machine("patched()").patched(name, caller_place())


def deprecate_patch(name: str) -> None:
    """Declare that no flow from before the patch is left: the old branch is gone, the marker still allowed.

    Raises `NotInFlow` outside a flow, in a step too.
    """
    check_name("patch name", name)
    need_machine("deprecate_patch()").patched(name, caller_place())


class FlowLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger that is silent on replay and adds the flow id to each record (`record.flow_id`): see `get_logger`."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # the standard library's name
        return not is_replaying() and super().isEnabledFor(level)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if self.isEnabledFor(level):
            line, told = self.process(msg, kwargs)
            current = _running_flow_id()
            if current is not None:
                # Only a line with arguments is formatted, and then a `%` in the id must not be taken for one of its.
                line = f"[{current.replace('%', '%%') if args else current}] {line}"
            told["stacklevel"] = told.get("stacklevel", 1) + 1  # whoever logs is one frame above this
            self.logger.log(level, line, *args, **told)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        current = _running_flow_id()
        if current is not None:
            kwargs["extra"] = {**(kwargs.get("extra") or {}), "flow_id": current}
        return msg, kwargs


def _running_flow_id() -> str | None:
    machine, context = current_machine(), step_context.get()
    return machine.flow_id if machine is not None else context.flow_id if context is not None else None


def get_logger(name: str = "ergon.flow") -> FlowLogger:
    """A logger for flows and steps that is silent while a flow repeats what it did before.

    name: of the standard logger that the lines go to, with the flow id before each. Default "ergon.flow".

    In a flow a line is written at most once for each attempt of the flow, except that a new attempt whose worker died
    before it recorded anything logs its beginning again. Lines can be lost: those that the flow writes between what it
    saw last and what it waits for next, when the process dies just then. Nothing tells a replay whether they were
    written, and it keeps silent. In a step each attempt logs: what must not be lost belongs there, or in a result.
    """
    return FlowLogger(logging.getLogger(name), {})
