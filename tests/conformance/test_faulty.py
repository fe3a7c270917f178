"""The suite and the comparison with the model reject logs that are wrong in one way each, and say where."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from ergon.storage.log import ExecutionLog
from ergon.testing.conformance import kit
from ergon.testing.conformance.differential import run_one
from ergon.testing.conformance.oracle.compare import Difference
from tests.conformance.defects import DEFECTS, Defect
from tests.conformance.faulty import Sound
from tests.conformance.rejecting import failing

pytestmark = pytest.mark.filterwarnings("ignore")  # a behaviour that fails leaves calls that it did not await
each_defect = pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.id)
SEQUENCES = 150


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    """What a wrong log never does is not waited for long."""
    kit.be_patient(0.3)
    yield
    kit.be_patient(30.0)


@each_defect
def test_the_suite_rejects_a_log_that(defect: Defect, monkeypatch: pytest.MonkeyPatch) -> None:
    defect.patch(monkeypatch)

    rejected = failing(defect.log, defect.subjects, defect.fails)

    assert sorted(rejected) == sorted(defect.fails)


@pytest.mark.parametrize("defect", [one for one in DEFECTS if one.oracle], ids=lambda defect: defect.id)
def test_the_model_tells_a_log_that(defect: Defect, monkeypatch: pytest.MonkeyPatch) -> None:
    defect.patch(monkeypatch)

    with pytest.raises(Difference, match="sequence"):
        asyncio.run(compare(defect.log))


def test_a_log_without_a_defect_is_rejected_by_nothing() -> None:
    """So that what the others fail is their defect's doing."""
    kit.be_patient(30.0)
    subjects = {subject for defect in DEFECTS for subject in defect.subjects}
    named = {name for defect in DEFECTS for name in defect.fails}

    assert failing(Sound, subjects, named) == set()


async def compare(make: Callable[[], ExecutionLog]) -> None:
    async with make() as log:
        for number in range(SEQUENCES):
            await run_one([log], f"1-{number}")
