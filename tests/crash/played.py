"""The flows of `examples/` and of the demo, as they are, with every step body counted.

What differs from running the files: a step leaves a record where it begins and ends, waiting is shorter, and the client
is ours, because it must be able to repeat itself.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec

from ergon import Completed, Executor, FlowCall, FlowHandle, Scheduler, Step, schedule_timer_named
from ergon.demo import flows as demo
from ergon.demo.files import Job, to_text
from examples import (
    at_most_once,
    changing_code,
    child_flows,
    dag_builder,
    detached_children,
    distributed_timers,
    human_approval,
    kinds_of_steps,
    operating,
    order,
    quick_start,
    retries,
    signal_source,
    stable_values,
    verified_payment,
)
from examples import dag as dag_example
from tests.crash.program import Stage, effecting, ledger_of_process, note
from tests.crash.scenario import Check, Scenario
from tests.crash.snapshot import Snapshot

# -- counting ----------------------------------------------------------------------------------------------


def counted(*modules: ModuleType) -> Callable[[], None]:
    """Let every step of these modules write to the ledger where its body begins and ends."""

    def prepare() -> None:
        for module in modules:
            for found in _steps(module):
                found.decoder  # noqa: B018 - found now, from the function's own annotations
                found.function = _noted(found)

    return prepare


def _steps(module: ModuleType) -> list[Step[..., Any]]:
    own = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]
    methods = [method for cls in own if isinstance(cls, type) for method in vars(cls).values()]
    return [found for found in (*own, *methods) if isinstance(found, Step)]


def _noted(found: Step[..., Any]) -> Callable[..., Any]:
    function = found.function

    def noting() -> AbstractContextManager[str]:
        return effecting(found.name, amo=found.options.at_most_once)

    @functools.wraps(function)
    async def noted(*args: Any, **kwargs: Any) -> Any:
        with noting():
            return await function(*args, **kwargs)

    @functools.wraps(function)
    def noted_on_thread(*args: Any, **kwargs: Any) -> Any:
        with noting():
            return function(*args, **kwargs)

    return noted if found.is_async else noted_on_thread


def _returns(expected: Callable[[str, Any], bool], *ids: str) -> Check:
    """Each of these flows has completed with a result that is as expected."""

    def check(final: Snapshot) -> Iterator[str]:
        for id in ids:
            row = final.flows.get(id)
            if row is None or row["status"] != "completed":
                yield f"flow {id} must have completed, but is {row and row['status']}"
            elif not expected(id, json.loads(row["output"])):
                yield f"flow {id} returned {row['output']}"

    return check


# -- the examples --------------------------------------------------------------------------------------------


async def _run_here(stage: Stage, target: Any) -> None:
    outcome = await Executor(target, stage.log, "f").run()
    assert isinstance(outcome, Completed)
    note("RESULT", flow="f", value=outcome.result)


async def _quick_start(stage: Stage) -> None:
    await _run_here(stage, quick_start.OrderProcessor("ORD-001", 100.0))


async def _dag(stage: Stage) -> None:
    await _run_here(stage, dag_example.Report("Ada"))


async def _letter(stage: Stage) -> None:
    await stage.result(await stage.schedule(at_most_once.remind.bind("Ann"), "f"))


async def _newsletter(stage: Stage) -> None:
    await stage.result(await stage.schedule(child_flows.newsletter.bind(["Oslo", "Quito"]), "f"))


TIMERS: Final = ("ORD-000", "ORD-001")


def _faster() -> None:
    def schedule_soon(seconds: float, name: str) -> Any:
        return schedule_timer_named(seconds / 100, name)

    vars(distributed_timers)["schedule_timer_named"] = schedule_soon
    vars(human_approval).update(REMIND_AFTER=0.02, GIVE_UP_AFTER=0.04)
    counted(distributed_timers, human_approval)()


async def _timers(stage: Stage) -> None:
    flows = [
        await stage.schedule(distributed_timers.TimedOrderProcessor(id).process.bind(), id) for id in TIMERS
    ]
    for handle in flows:
        await stage.result(handle)


async def _expenses(stage: Stage) -> None:
    prompt = await stage.schedule(human_approval.expense.bind(40.0, "Ann"), "expense-1")
    ignored = await stage.schedule(human_approval.expense.bind(5000.0, "Bob"), "expense-2")
    answer: Any = {"by": "Ann", "approved": True}
    await stage.signal(prompt, "answer", answer, key="click-1")
    await stage.result(prompt)
    await stage.result(ignored)


def _decided(id: str, result: str) -> bool:
    # Late, because the client was killed before it could answer, Ann's answer finds nobody waiting.
    return result == "nobody answered" or (id == "expense-1" and result == "approved by Ann")


async def _order(stage: Stage) -> None:
    handle = await stage.schedule(order.process.bind(order.Order("order-2", 99.5)), "f")
    await stage.signal(handle, "approval", "accept", key="by-ann")
    await stage.result(handle)


def _receipt(_: str, result: Any) -> bool:
    payment = {"reference": "payment-order-2", "amount": 99.5}
    return bool(result == {"payment": payment, "stock": {"shelf": "A3"}, "decision": "accept"})


async def _shop(stage: Stage) -> None:
    await stage.result(await stage.schedule(retries.buy.bind("lamp"), "f"))


def _soon() -> None:
    for found in (retries.fetch_price, retries.pay):
        quick = replace(found.options.retry, first_delay_seconds=0.002)
        found.options = msgspec.structs.replace(found.options, retry=quick)
    counted(retries)()


async def _kinds(stage: Stage) -> None:
    await stage.result(await stage.schedule(kinds_of_steps.report.bind("example.org"), "f"))


async def _signalled(stage: Stage, call: FlowCall[Any], name: str, value: Any = None) -> None:
    handle = await stage.schedule(call, "f")
    await stage.signal(handle, name, value, key="k1")
    await stage.result(handle)


async def _lottery(stage: Stage) -> None:
    await _signalled(stage, stable_values.lottery.bind(), "collect")


class _Drawn:
    """Notes each ticket as a result: before the wait and after it, in every process, it must be the same one."""

    def append(self, drawn: tuple[str, ...]) -> None:
        note("RESULT", flow="f", value=drawn[2])
        note("RESULT", flow="all that f drew", value=drawn)


def _compared() -> None:
    vars(stable_values)["SEEN"] = _Drawn()


async def _visa(stage: Stage) -> None:
    await _signalled(stage, signal_source.visa.bind("Ann"), "verdict", "granted")


async def _import(stage: Stage) -> None:
    await _signalled(stage, operating.import_rows.bind("crm"), "approval", "approved")


def _repaired() -> None:
    operating.BROKEN.clear()
    counted(operating)()


async def _changed(stage: Stage) -> None:
    await _signalled(stage, changing_code.today.bind("new"), "paid")


async def _weather(stage: Stage) -> None:
    await _run_here(stage, dag_builder.weather.bind("Oslo", "Lisbon"))


async def _books(stage: Stage) -> None:
    sale = await stage.schedule(detached_children.sell.bind("o1"), "f")
    await stage.result(sale)
    audit: FlowHandle[Any] = Scheduler(stage.log).handle("audit-o1")
    await stage.signal(audit, "answer", "well", key="k1")
    await stage.result(audit)


async def _payment(stage: Stage) -> None:
    await stage.result(await stage.schedule(verified_payment.settle.bind("Ann", 40.0), "f"))


def _with_a_bank() -> None:
    vars(verified_payment)["BANK"] = Path(ledger_of_process().path).parent / "bank"
    pay = verified_payment.pay

    def verify(*args: Any) -> object:
        note("VERIFY")
        return verified_payment.ask_the_bank(*args)

    pay.options = msgspec.structs.replace(pay.options, verify=verify)
    counted(verified_payment)()


# -- the demo ------------------------------------------------------------------------------------------------


async def _demo(stage: Stage) -> None:
    home = Path(ledger_of_process().path).parent
    tree = home / "tree"
    (home / "parts").mkdir(exist_ok=True)
    (tree / "below").mkdir(parents=True, exist_ok=True)
    for name in ("one", "two", "below/three"):
        (tree / name).write_text(name)
    job = Job(root=to_text(bytes(tree)), home=str(home))
    handle = await stage.schedule(demo.index_tree.bind(job), "f")
    confirmation: Any = {"by": "Ann", "publish": True}
    await stage.signal(handle, "confirm", confirmation, key="k1")
    await stage.result(handle)


def _indexed(_: str, result: Any) -> bool:
    return bool(result["totals"]["files"] == 3 and result["published"])


PLAYED: Final[dict[str, Scenario]] = {
    "example quick_start": Scenario(
        main=_quick_start,
        prepare=counted(quick_start),
        check=_returns(lambda _, result: bool(result == "payment-ORD-001"), "f"),
    ),
    "example dag": Scenario(
        main=_dag,
        prepare=counted(dag_example),
        check=_returns(lambda _, result: bool(result == "Ada pays 38.25"), "f"),
        points_max=12,
    ),
    "example at_most_once": Scenario(
        main=_letter,
        flows=(at_most_once.remind,),
        prepare=counted(at_most_once),
        check=_returns(lambda _, result: result == "sent" or "unknown whether" in result, "f"),
    ),
    "example child_flows": Scenario(
        main=_newsletter,
        flows=(child_flows.newsletter, child_flows.forecast),
        prepare=counted(child_flows),
        check=_returns(lambda _, result: bool(result == {"Oslo": 5.0, "Quito": 6.0, "Lisbon": 7.0}), "f"),
        points_max=14,
    ),
    "example distributed_timers": Scenario(
        main=_timers,
        flows=(distributed_timers.TimedOrderProcessor,),
        prepare=_faster,
        check=_returns(lambda _, result: bool(result == "completed"), *TIMERS),
    ),
    "example human_approval": Scenario(
        main=_expenses,
        flows=(human_approval.expense,),
        prepare=_faster,
        check=_returns(_decided, "expense-1", "expense-2"),
        points_max=14,
    ),
    "example order": Scenario(
        main=_order,
        flows=(order.process,),
        prepare=counted(order),
        check=_returns(_receipt, "f"),
        points_max=10,
    ),
    "example retries": Scenario(
        main=_shop,
        flows=(retries.buy,),
        prepare=_soon,
        check=_returns(
            lambda _, result: bool(result == ["paid 12.5 at attempt 2", "gave up on stolen"]), "f"
        ),
        points_max=14,
    ),
    "example kinds_of_steps": Scenario(
        main=_kinds,
        flows=(kinds_of_steps.report,),
        prepare=counted(kinds_of_steps),
        check=_returns(lambda _, result: "4999 in another process: True" in result, "f"),
        points_max=5,
    ),
    "example stable_values": Scenario(
        main=_lottery,
        flows=(stable_values.lottery,),
        prepare=_compared,
        check=_returns(lambda _, result: len(result) == 36, "f"),
    ),
    "example signal_source": Scenario(
        main=_visa,
        flows=(signal_source.visa,),
        check=_returns(lambda _, result: bool(result == "Ann: granted"), "f"),
    ),
    "example operating": Scenario(
        main=_import,
        flows=(operating.import_rows,),
        prepare=_repaired,
        check=_returns(lambda _, result: bool(result == "rows of crm, approved"), "f"),
    ),
    "example changing_code": Scenario(
        main=_changed,
        flows=(changing_code.today,),
        prepare=counted(changing_code),
        check=_returns(lambda _, result: bool(result == ["in stock", "shelf A3", "new shipped"]), "f"),
        points_max=14,
    ),
    "example dag_builder": Scenario(
        main=_weather,
        prepare=counted(dag_builder),
        check=_returns(lambda _, result: bool(result == "the mean is 7.5"), "f"),
        points_max=12,
    ),
    "example detached_children": Scenario(
        main=_books,
        flows=(detached_children.sell, detached_children.audit, detached_children.print_book),
        queues=("default", "presses"),
        prepare=counted(detached_children),
        check=_returns(lambda _, result: bool(result in (["page 1", "page 2"], "o1: well")), "f", "audit-o1"),
        points_max=14,
    ),
    "example verified_payment": Scenario(
        main=_payment,
        flows=(verified_payment.settle,),
        prepare=_with_a_bank,
        check=_returns(lambda _, result: bool(result == "paid 40.0 to Ann"), "f"),
    ),
    "demo": Scenario(
        main=_demo,
        flows=(demo.index_tree, demo.index_directory),
        prepare=counted(demo),
        check=_returns(_indexed, "f"),
        points_max=14,
    ),
}
