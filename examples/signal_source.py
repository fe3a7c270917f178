"""Signals from another system: a worker polls it, and each signal arrives once however often it is brought.

Here the other system is a folder of files, as a mail gateway might write them: `<flow id>.<signal name>.json`.
"""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from ergon import (
    IncomingSignal,
    Scheduler,
    SqliteExecutionLog,
    Worker,
    WorkerOptions,
    flow,
    wait_signal,
)
from ergon.errors import ErgonError

QUICK = WorkerOptions(poll_seconds=0.05)


class Folder:
    """Satisfies `ergon.SignalSource`."""

    def __init__(self, place: Path) -> None:
        self.place = place

    async def poll(self) -> Sequence[IncomingSignal]:
        found = []
        for path in sorted(self.place.glob("*.json")):
            flow_id, name = path.stem.split(".")
            value = json.loads(path.read_text())
            found.append(IncomingSignal(flow_id=flow_id, name=name, value=value, key=path.name))
        return found

    async def done(self, signal: IncomingSignal, error: ErgonError | None) -> None:
        """Kept by the log, or refused for good: forget it here."""
        print(f"{signal.key}: {'kept' if error is None else type(error).__name__}")
        (self.place / signal.key).unlink(missing_ok=True)


@flow
async def visa(applicant: str) -> str:
    return f"{applicant}: {await wait_signal('verdict', str)}"


async def main() -> None:
    place = Path("mail")
    place.mkdir(exist_ok=True)
    (place / "visa-1.verdict.json").write_text('"granted"')
    async with SqliteExecutionLog("visas.db") as log:
        handle = await Scheduler(log).schedule(visa.bind("Ann"), id="visa-1")
        async with Worker(log, flows=[visa], signal_sources=[Folder(place)], options=QUICK):
            print(await handle.result())
            while list(place.glob("*.json")):
                await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main())
