"""What reaches outside a flow is refused with a message that says where it belongs."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ergon.errors import NotAllowedInFlow
from ergon.replay.loop import FlowLoop
from tests.replay.rig import Rig, charge


async def on_a_thread() -> None:
    await asyncio.to_thread(print)


async def in_an_executor() -> None:
    await asyncio.get_running_loop().run_in_executor(None, print)


async def over_a_connection() -> None:
    await asyncio.open_connection("localhost", 1)


async def as_a_server() -> None:
    await asyncio.start_server(lambda *_: None, "localhost", 1)


async def through_a_socket() -> None:
    with socket.socket() as outside:
        outside.setblocking(False)
        await asyncio.get_running_loop().sock_recv(outside, 1)


async def in_a_subprocess() -> None:
    await asyncio.create_subprocess_exec("true")


async def in_a_shell() -> None:
    await asyncio.create_subprocess_shell("true")


async def looks_up_a_name() -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 1)


async def from_another_thread() -> None:
    asyncio.get_running_loop().call_soon_threadsafe(print)


async def on_a_signal_of_the_system() -> None:
    asyncio.get_running_loop().add_signal_handler(1, print)


@pytest.mark.parametrize(
    "flow",
    [
        on_a_thread,
        in_an_executor,
        over_a_connection,
        as_a_server,
        through_a_socket,
        in_a_subprocess,
        in_a_shell,
        looks_up_a_name,
        from_another_thread,
        on_a_signal_of_the_system,
    ],
    ids=lambda flow: flow.__name__,
)
def test_reaching_outside_is_refused_and_the_message_says_put_it_in_a_step(flow: Callable[[], Any]) -> None:
    rig = Rig(flow)

    with pytest.raises(NotAllowedInFlow, match="Put this work in a function decorated with @step"):
        _ = rig.result


def test_every_public_method_of_an_event_loop_is_either_provided_or_refused() -> None:
    """A later Python may add some; none may fall through to `NotImplementedError`."""
    inherited = [
        name
        for name in vars(asyncio.AbstractEventLoop)
        if not name.startswith("_") and getattr(FlowLoop, name) is getattr(asyncio.AbstractEventLoop, name)
    ]

    assert inherited == []


def test_a_task_made_by_calling_the_class_is_refused_where_it_asks_for_something() -> None:
    async def flow() -> None:
        await asyncio.Task(charge(1))

    with pytest.raises(NotAllowedInFlow, match=r"asyncio\.create_task"):
        _ = Rig(flow).result


def test_a_set_of_coroutines_has_no_order_and_is_refused() -> None:
    async def flow() -> None:
        calls = {charge(1), charge(2)}
        try:
            for following in asyncio.as_completed(calls):
                await following
        finally:
            for call in calls:
                call.close()

    with pytest.raises(NotAllowedInFlow, match="Give it a list"):
        _ = Rig(flow).result


async def test_a_flow_cannot_be_driven_from_inside_a_task_of_the_host() -> None:
    """On Python 3.14 a thread has one current task; refused everywhere, so that it is found on any version."""

    async def flow() -> None:
        await charge(1)

    with pytest.raises(RuntimeError, match="plain callback"):
        Rig(flow)


async def test_a_plain_callback_of_the_host_loop_may_drive_a_flow() -> None:
    host = asyncio.get_running_loop()
    seen: list[Any] = []
    ended = asyncio.Event()

    async def flow() -> str:
        seen.append(asyncio.current_task(host))
        return await charge(1)

    def turn() -> None:
        rig = Rig(flow).completes("charge", "paid").land()
        seen.append(asyncio.current_task(host))
        seen.append(rig.result)
        ended.set()

    host.call_soon(turn)
    await ended.wait()

    assert seen == [None, None, "paid"]
    assert asyncio.get_running_loop() is host


def test_tasks_are_only_ever_entered_while_none_is_entered_in_the_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rule of Python 3.14, simulated: entering a task while another is current is an error."""
    entered: list[str] = []

    class Watched(FlowLoop):
        def run_until_quiet(self, *args: Any) -> None:
            assert not entered, "a turn began inside a turn"
            entered.append(threading.current_thread().name)
            try:
                super().run_until_quiet(*args)
            finally:
                entered.pop()

    Watched.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    monkeypatch.setattr("ergon.replay.machine.FlowLoop", Watched)

    async def flow() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.wait_for(asyncio.sleep(1), 5))
            group.create_task(asyncio.sleep(2))

    rig = Rig(flow).rings().land().rings().land()

    assert rig.result is None
