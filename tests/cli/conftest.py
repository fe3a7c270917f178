"""Two ways to run a verb: in this process, which is quick, and as the real command."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ergon.cli.app import call

FLOWS = """
import asyncio
import os
from dataclasses import dataclass
from ergon import RetryPolicy, flow, flow_type, invoke, step, wait_signal

@step
async def increase(n: int) -> int:
    return n + 1

@step
def note(text: str) -> None:
    with open("notes.txt", "a") as file:
        file.write(text + "\\n")

@flow
async def count(n: int) -> int:
    for _ in range(3):
        n = await increase(n)
    return n

@flow
async def takes_more(n: int, *rest: int, b: int = 2, **more: int) -> int:
    return n + b + sum(more.values())

@flow
async def naps(seconds: float) -> str:
    await note("before")
    await asyncio.sleep(seconds)
    await note("after")
    return "rested"

@flow
async def fails(reason: str = "no luck") -> int:
    await increase(1)
    raise ValueError(reason)

@flow
async def fails_beside_a_child() -> int:
    try:
        return await invoke(fails.bind("the child's"), id="child").result()
    except ValueError:
        raise ValueError("its own") from None

@step
async def is_late() -> None:
    with open("notes.txt", "a") as file:
        file.write("begun\\n")
    await asyncio.sleep(0.5)
    raise ValueError("late")

@flow
async def fails_late() -> None:
    await is_late()

@step
async def is_late_and_well() -> str:
    with open("notes.txt", "a") as file:
        file.write("begun\\n")
    await asyncio.sleep(0.5)
    return "well"

@flow
async def ends_late() -> str:
    return await is_late_and_well()

@step
def deploys() -> str:
    with open("deployed", "w"):
        return "other"

@flow
async def changes() -> str:
    if os.path.exists("deployed"):
        await increase(1)
    await deploys()
    return await wait_signal("go", str)

@flow
async def fails_once() -> str:
    await note("charged")
    if not os.path.exists("mended"):
        raise ValueError("broken")
    return "fine"

@flow
async def asks(question: str) -> str:
    return await wait_signal("approval", str)

@flow
async def family() -> list[int]:
    handles = [invoke(count.bind(n), id=f"kid-{n}") for n in (1, 2)]
    return [await handle.result() for handle in handles]

@step
async def slow(seconds: float) -> str:
    with open("notes.txt", "a") as file:
        file.write("slow begins\\n")
    await asyncio.sleep(seconds)
    return "slow is done"

@flow
async def works(seconds: float) -> str:
    return await slow(seconds)

@flow
async def spins() -> None:
    open("spinning", "w").close()
    while True:
        pass

@dataclass
@flow_type
class Order:
    id: str
    amount: float

    @flow
    async def process(self) -> str:
        return f"{self.id}: {self.amount:.2f}"
"""


@dataclass
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with `shop.py` in it, and no settings of this machine."""
    (tmp_path / "shop.py").write_text(FLOWS)
    monkeypatch.chdir(tmp_path)
    for name in ("ERGON_LOG", "ERGON_NAMESPACE", "ERGON_DEBUG", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def ergon(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Answer]]:
    """Run a verb in this process."""
    paths = list(sys.path)

    def run(*arguments: str) -> Answer:
        capsys.readouterr()
        code = call(arguments)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    yield run
    sys.path[:] = paths
    sys.modules.pop("shop", None)


@pytest.fixture
def ergon_async(ergon) -> Callable[..., Any]:
    """The same for tests that are coroutines: a verb makes an event loop of its own, so it gets a thread."""

    async def run(*arguments: str) -> Answer:
        return await asyncio.to_thread(ergon, *arguments)

    return run


@pytest.fixture
def command() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the real command; it is killed when the test ends."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "ergon", *arguments],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **options.pop("env", {})},
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
