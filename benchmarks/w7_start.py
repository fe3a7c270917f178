"""W7: start-up; import, the first flow, and the memory of a program that does little."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.model import DBOS, ERGON, FLOOR, PYERGON, Bar, Figures, Params, Row, Workload, at_most

DRIVERS = ("asyncpg", "psycopg", "redis", "apsw", "aiosqlite")
PROBE = """
import sys, time
{before}
start = time.perf_counter()
{imports}
took = (time.perf_counter() - start) * 1000
print(took, sum(name in sys.modules for name in {drivers!r}))
"""
HELLO = "from ergon import Scheduler, SqliteExecutionLog, Worker, flow, step"


def ergon(params: Params) -> Figures:
    """Imports in fresh interpreters; then, in this one, a new log and one flow of one step; then its peak memory."""
    from ergon import Scheduler, SqliteExecutionLog, Worker, flow, step

    @step
    async def greet(name: str) -> str:
        return f"Hello, {name}!"

    @flow
    async def hello(name: str) -> str:
        return await greet(name)

    took = []

    async def main() -> None:
        start = time.perf_counter()
        async with SqliteExecutionLog(Path(params["folder"]) / "hello.db") as log, Worker(log, flows=[hello]):
            handle = await Scheduler(log).schedule(hello.bind("world"), id="hello")
            assert await handle.result() == "Hello, world!"
            took.append((time.perf_counter() - start) * 1000)

    asyncio.run(main())
    peak = peak_mib()
    package, _ = probe("import ergon")
    names, drivers = probe(HELLO)
    warm, _ = probe(HELLO, before="import asyncio, sqlite3, dataclasses, logging, json")
    return {
        "import_ms": package,
        "import_names_ms": names,
        "import_own_ms": warm,
        "drivers": drivers,
        "first_flow_ms": took[0],
        "peak_mib": peak,
    }


def floor(params: Params) -> Figures:
    """The standard library that Ergon stands on, and one awaited commit on a new file."""
    from benchmarks.floor import BareWriter, row

    took = []

    async def main() -> None:
        start = time.perf_counter()
        writer = BareWriter(Path(params["folder"]) / "bare.db", group=False)
        await writer.write(row("hello", 1))
        took.append((time.perf_counter() - start) * 1000)
        writer.close()

    asyncio.run(main())
    peak = peak_mib()
    imported, _ = probe("import asyncio, sqlite3, dataclasses, logging, json")
    return {"import_names_ms": imported, "first_flow_ms": took[0], "peak_mib": peak}


def probe(imports: str, *, before: str = "") -> tuple[float, float]:
    """How long an import takes in a fresh interpreter, and how many drivers of other stores came with it."""
    code = PROBE.format(before=before, imports=imports, drivers=DRIVERS)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    took, drivers = run.stdout.split()
    return float(took), float(drivers)


def peak_mib() -> float:
    """The most memory that this process ever held."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this system does not tell a process's peak memory")


WORKLOAD = Workload(
    name="W7",
    title="Start-up",
    sides={ERGON: ergon, FLOOR: floor},
    rivals={DBOS: {}, PYERGON: {}},
    rows=(
        Row("import ergon", "import_ms", "ms", at_most("import_ms", 50, "under 50 ms")),
        Row("import with the names a program uses", "import_names_ms", "ms"),
        Row("of it Ergon's own, above the standard library", "import_own_ms", "ms"),
        Row(
            "drivers imported and not used",
            "drivers",
            "",
            Bar("none", lambda m: m[ERGON]["drivers"] == 0),
        ),
        Row("open a new log, first one-step flow", "first_flow_ms", "ms",
            at_most("first_flow_ms", 12, "under 12 ms")),
        Row("peak memory (VmHWM) of hello-world", "peak_mib", "MiB", at_most("peak_mib", 35, "under 35 MiB")),
    ),
    full={},
    quick={},
    rounds=7,
    notes=("floor: asyncio, sqlite3, dataclasses, logging and json imported; one awaited commit on a new file",),
)  # fmt: skip
