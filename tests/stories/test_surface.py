"""What `import ergon` and `from ergon import *` give."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ergon
from ergon import Executor, Scheduler, UsageError, Worker, flow


def test_a_star_import_leaves_the_standard_modules_alone() -> None:
    program = "import random\nfrom ergon import *\nprint(random.Random(7).random(), flow, step)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "random" not in ergon.__all__
    assert not {"asyncio", "logging", "time", "uuid"} & set(ergon.__all__)


@pytest.mark.parametrize("name", [*ergon.__all__, "random"])
def test_every_public_name_can_be_imported_and_is_documented(name: str) -> None:
    found = getattr(ergon, name)

    assert name in dir(ergon)
    assert found.__doc__ or name == "Outcome"  # a union has none


@pytest.mark.parametrize(
    "name",
    [
        "schedule_timer",
        "schedule_timer_named",
        "wait_signal",
        "invoke",
        "now",
        "random",
        "rng",
        "uuid4",
        "flow_id",
        "idempotency_key",
        "attempt",
        "patched",
        "deprecate_patch",
    ],
)
def test_what_works_only_in_a_flow_or_a_step_says_what_it_raises_elsewhere(name: str) -> None:
    assert "`NotInFlow`" in (getattr(ergon, name).__doc__ or "")


def test_a_star_import_leaves_out_logs_whose_driver_is_not_installed() -> None:
    program = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = staticmethod(lambda name, *more: None if name in ("redis", "asyncpg") else find(name, *more))
from ergon import *
import ergon, inspect
inspect.getmembers(ergon)
print(SqliteExecutionLog.__name__, {"PostgresExecutionLog", "RedisExecutionLog"} & set(dir(ergon)))
try:
    ergon.RedisExecutionLog
except LogRefused as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "SqliteExecutionLog set()",
        "a log on Redis or Valkey needs the package redis; install it with: pip install 'ergon[redis]'",
    ]


@pytest.mark.parametrize("given", ["redis://:secret@host/0", Path("ergon.db")])
def test_a_path_or_url_in_place_of_a_log_is_told_at_once_and_not_shown(given: Any) -> None:
    @flow
    async def nothing() -> None: ...

    for use in (
        lambda: Scheduler(given),
        lambda: Worker(given, flows=[nothing]),
        lambda: Executor(nothing.bind(), given, "f"),
    ):
        with pytest.raises(UsageError, match="an open log is wanted") as told:
            use()
        assert "secret" not in str(told.value)
