"""Which flows a worker may claim: by queue, name, version and tags, or the one it names."""

from __future__ import annotations

import pytest

from ergon.core.status import TaskStatus
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    LONG_SECONDS,
    claim,
    ids,
    new_flow,
    record,
    register,
    settle,
    status_of,
    until,
)


async def test_flows_of_other_names_stay_untouched(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("other", name="ghost"))
    await log.create(new_flow("mine"))

    assert ids(await claim(log)) == ["mine"]
    assert ((await record(log, "other")).status, (await record(log, "other")).claims) == ("pending", 0)


async def test_flows_of_other_queues_stay_untouched(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("other", queue="gpu"))
    await log.create(new_flow("mine"))

    assert ids(await claim(log)) == ["mine"]
    assert ids(await claim(log, queues=("gpu", "none"))) == ["other"]


async def test_a_worker_without_names_or_queues_claims_nothing(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("f1"))

    assert await claim(log, names=()) == []
    assert await claim(log, queues=()) == []


async def test_however_many_flows_nobody_here_runs_stand_in_front_the_others_are_claimed(
    log: ExecutionLog,
) -> None:
    await register(log)
    for n in range(150):
        await log.create(new_flow(name="ghost", priority=9))
        await log.create(new_flow(queue="gpu", priority=9))
        await log.create(new_flow(version="v9", priority=9))
        await log.create(new_flow(tags=("gpu", f"{n}"), priority=9))
    await log.create(new_flow("mine"))

    assert ids(await claim(log, limit=1, versions=("v1",), tags=("gpu",))) == ["mine"]


@pytest.mark.parametrize(
    "versions, expected",
    [
        (None, {"none", "v1", "v2"}),
        (("v1",), {"none", "v1"}),
        (("v1", "v2"), {"none", "v1", "v2"}),
        ((), {"none"}),
    ],
)
async def test_a_flow_goes_only_to_a_worker_that_runs_its_version(
    log: ExecutionLog, versions: tuple[str, ...] | None, expected: set[str]
) -> None:
    await register(log)
    for id, version in [("none", None), ("v1", "v1"), ("v2", "v2")]:
        await log.create(new_flow(id, version=version))

    assert set(ids(await claim(log, versions=versions))) == expected


VERSIONS = ("1.1", "1.2", "1.10", "2.0", "blue", None)


@pytest.mark.parametrize(
    "wanted, expected",
    [
        ((">=1.2,<2",), {"1.2", "1.10", None}),
        (("blue", ">=2"), {"2.0", "blue", None}),
        (("1.1", "1.1"), {"1.1", None}),
        ((">1.2,!=1.10",), {"2.0", None}),
        ((">=3",), {None}),
        (("*",), set(VERSIONS)),
        ((), {None}),
        (None, set(VERSIONS)),
    ],
)
async def test_a_worker_claims_the_versions_in_its_names_and_ranges(
    log: ExecutionLog, wanted: tuple[str, ...] | None, expected: set[str | None]
) -> None:
    """By number: 1.10 comes after 1.2."""
    await register(log)
    for version in VERSIONS:
        await log.create(new_flow(f"f{version}", version=version))
    await log.create(new_flow("later", version="1.5", delay_seconds=LONG_SECONDS))
    await log.create(new_flow("elsewhere", version="1.3", queue="other"))

    claimed = await claim(log, versions=wanted)

    assert {one.flow.version for one in claimed} == expected


async def test_priority_holds_across_the_versions_of_a_range(log: ExecutionLog) -> None:
    await register(log)
    for priority, version in enumerate(["1.5", "3.0", "1.2", "1.10", "2.0", None]):
        await log.create(new_flow(f"f{priority}", version=version, priority=priority))

    assert ids(await claim(log, versions=(">=1.2,<2",), limit=2)) == ["f5", "f3"]
    assert ids(await claim(log, versions=(">=1.2,<2",), limit=9)) == ["f2", "f0"]


async def test_a_version_is_a_text_and_no_number_for_a_worker_that_names_it(log: ExecutionLog) -> None:
    await register(log)
    for version in ("1.0", "1", "01", "1.00"):
        await log.create(new_flow(version, version=version))

    assert ids(await claim(log, versions=("1.0",))) == ["1.0"]


SETS = {
    "plain": (),
    "gpu": ("gpu",),
    "big": ("big",),
    "both": ("big", "gpu"),
    "five": ("a", "b", "big", "c", "gpu"),
}


@pytest.mark.parametrize("versions", [None, ("v1",), (">=0.1",)], ids=["any", "exact", "range"])
@pytest.mark.parametrize(
    "tags, expected",
    [
        ((), {"plain"}),
        (("gpu",), {"plain", "gpu"}),
        (("gpu", "big"), {"plain", "gpu", "big", "both"}),
        (("gpu", "x", "y", "z"), {"plain", "gpu"}),
        (("gpu", "c", "b", "a", "big", "z"), set(SETS)),
        (("gp", 'gpu"', "GPU"), {"plain"}),
    ],
    ids=["none", "one", "two", "four", "more", "alike"],
)
async def test_a_worker_gets_the_flows_whose_tags_it_has(
    log: ExecutionLog, tags: tuple[str, ...], expected: set[str], versions: tuple[str, ...] | None
) -> None:
    await register(log, tags=tags)
    for id, flow_tags in SETS.items():
        await log.create(new_flow(id, tags=flow_tags))

    assert set(ids(await claim(log, tags=tags, versions=versions))) == expected


async def test_tags_and_versions_narrow_together(log: ExecutionLog) -> None:
    await register(log)
    for version in ("1.0", "2.0", None):
        for name, tags in (("gpu", ("gpu",)), ("plain", ())):
            await log.create(new_flow(f"{name}-{version}", version=version, tags=tags))

    assert set(ids(await claim(log, versions=(">=2",)))) == {"plain-2.0", "plain-None"}
    assert set(ids(await claim(log, versions=("1.0",), tags=("gpu",)))) == {
        "gpu-1.0",
        "plain-1.0",
        "gpu-None",
    }
    assert set(ids(await claim(log, tags=("gpu",)))) == {"gpu-2.0"}


async def test_priority_holds_across_sets_of_tags(log: ExecutionLog) -> None:
    await register(log)
    for id, priority, tags in [("a", 0, ("gpu",)), ("b", 2, ()), ("c", 1, ("big",)), ("d", 1, ("gpu",))]:
        await log.create(new_flow(id, priority=priority, tags=tags))

    claimed = [id for _ in range(2) for id in ids(await claim(log, tags=("gpu", "big"), limit=2))]

    assert claimed == ["b", "c", "d", "a"]


async def test_a_flow_keeps_its_tags_sorted_and_each_once(log: ExecutionLog) -> None:
    await log.create(new_flow("f", tags=("gpu", "big", "gpu")))

    assert (await record(log, "f")).tags == ("big", "gpu")


async def test_tags_may_hold_what_separates_them_elsewhere(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("one", tags=("a,b",)))
    await log.create(new_flow("two", tags=("a", "b")))

    assert ids(await claim(log, tags=("a,b", "x"))) == ["one"]
    assert ids(await claim(log, tags=("a", "b"))) == ["two"]


async def test_a_flow_that_wakes_keeps_its_tags(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("later", tags=("gpu",), delay_seconds=0.01))

    claimed = await until(lambda: claim(log, tags=("gpu",)))

    assert ids(claimed) == ["later"]
    await settle(log, "later", claimed[0].lease, TaskStatus.PENDING)
    assert await claim(log) == []
    assert await status_of(log, "later") is TaskStatus.PENDING


async def test_a_flow_is_claimed_by_its_id_whatever_its_queue_version_and_tags(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("f1", queue="gpu", version="v9", tags=("gpu",)))
    await log.create(new_flow("f2"))

    assert ids(await claim(log, flow_id="f1", versions=("v1",))) == ["f1"]
    assert await claim(log, flow_id="f1") == []
    assert await status_of(log, "f2") is TaskStatus.PENDING


async def test_a_flow_is_not_claimed_by_its_id_under_another_name(log: ExecutionLog) -> None:
    """The code that would run it is another flow's."""
    await register(log)
    await log.create(new_flow("f1"))

    assert await claim(log, flow_id="f1", names=("report",)) == []
    assert ids(await claim(log, flow_id="f1", names=("report", "order"))) == ["f1"]


async def test_a_flow_is_claimed_by_its_id_under_any_name_by_whoever_names_none(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("f1", name="report"))

    assert ids(await claim(log, flow_id="f1", names=())) == ["f1"]


async def test_a_flow_created_under_a_name_keeps_to_it_when_it_wakes(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("f1", name="report", delay_seconds=0.01))

    claimed = await until(lambda: claim(log, names=("report",)))

    assert ids(claimed) == ["f1"]
    assert (await record(log, "f1")).name == "report"
    assert await claim(log) == []


async def test_what_a_worker_declared_of_itself_does_not_narrow_its_claims(log: ExecutionLog) -> None:
    """A worker's row is for people; each claim says what it takes."""
    await register(log, flows=("else",), queues=("else",), versions=("else",), tags=("else",))
    await log.create(new_flow("f1", queue="q", version="v"))

    assert ids(await claim(log, queues=("q",), versions=("v",))) == ["f1"]
