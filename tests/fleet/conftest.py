"""What the tests of many workers share: a log on a server, worker processes, and the ledger they write to."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from ergon import ExecutionLog, open_log
from tests.crash.ledger import Ledger, Record, read_ledger
from tests.fleet import programs
from tests.servers import postgres, redis

ROOT = Path(__file__).resolve().parents[2]
_numbers = count(1)


@dataclass
class Place:
    """A log of a test's own on a server, and its ledger."""

    store: str
    ledger: Path
    namespace: str

    said: Path
    """What worker processes write to their standard error."""

    @property
    def port(self) -> int:
        """Where the server listens."""
        return postgres.server().port if self.store == "postgres" else redis.server().port

    def url(self, port: int | None = None) -> str:
        """How to reach the log; `port`: by a line between."""
        if self.store == "sqlite":
            return str(self.ledger.with_name("log.db"))
        if self.store == "postgres":
            base = f"postgresql://postgres@127.0.0.1:{port or self.port}/postgres?"
        else:
            base = f"redis://127.0.0.1:{port or self.port}/0?ephemeral=true&"
        return f"{base}namespace={self.namespace}"

    def records(self, kind: str | None = None) -> list[Record]:
        """What steps have told the outside world."""
        found = read_ledger(self.ledger)
        return [record for record in found if record.kind == kind or kind is None]

    @asynccontextmanager
    async def worker(
        self, name: str, *, port: int | None = None, code: Path | None = None, **options: Any
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """A worker process that is ready; killed at the end of the block if it still runs.

        `code`: a folder with another `ergon` than the one under test.
        """
        path = os.pathsep.join(str(folder) for folder in (code or ROOT / "src", ROOT))
        with self.said.open("ab") as said:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.fleet.programs",
                self.url(port), str(self.ledger), name, json.dumps(options),
                stdout=subprocess.PIPE, stderr=said, cwd=ROOT, env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
        assert process.stdout is not None
        try:
            assert await process.stdout.readline() == b"ready\n"
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@pytest.fixture(params=["postgres", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    ledger = tmp_path / "ledger"
    Ledger(ledger)  # so that it is there
    return Place(request.param, ledger, f"fleet-{next(_numbers)}", tmp_path / "said")


@pytest.fixture
async def log(place: Place) -> AsyncIterator[ExecutionLog]:
    async with open_log(place.url(), require="D1") as opened:
        programs.log_here.append(opened)  # for the steps of a worker in this process
        yield opened


Round = Callable[[int], Coroutine[Any, Any, float]]


@pytest.fixture
def within() -> Callable[[float, Round], Coroutine[Any, Any, None]]:
    """Measure up to three times: what the code can do, on a machine that is not always idle. One is enough."""

    async def best_within(seconds: float, measure: Round) -> None:
        tried: list[float] = []
        for number in range(3):
            tried.append(await measure(number))
            if tried[-1] < seconds:
                return
        raise AssertionError(f"took {tried} s, at most {seconds:g} s are allowed")

    return best_within
