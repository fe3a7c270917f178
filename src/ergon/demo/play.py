"""The story: start a worker, let it work, kill it, start it again, until everything is indexed, confirmed and checked.

All that must outlive this process is in the demo's directory, so the story can be cut off anywhere and told on.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from typing import Final

from ergon import FlowFilter, FlowRecord, Scheduler, SqliteExecutionLog, TaskStatus
from ergon.demo.check import regular_files
from ergon.demo.crew import FAILURES_MAX, Crew
from ergon.demo.files import place_of
from ergon.demo.flows import Confirmation, index_tree
from ergon.demo.home import Death, DemoError, Home, State
from ergon.demo.ledger import Line, Reader
from ergon.demo.screen import Screen
from ergon.demo.tally import Books
from ergon.executor.sentences import read_waits

FLOW_ID: Final = "index"
KILL_AT: Final = (0.25, 0.55, 0.80)
"""Parts of the files indexed, at which the worker is killed. It is killed once more while the flow waits."""
SMALL: Final = 200
"""A tree of fewer files is indexed faster than anybody can aim: files count from when their step has begun, and each
step takes a little longer."""
PAUSE_SECONDS: Final = 0.1
OUR_KILL: Final = "our SIGKILL"
TICK_SECONDS: Final = 0.02
SILENCE_SECONDS: Final = 20.0
NAMES_SHOWN: Final = 3
PAGE: Final = 1000
PATH_WIDTH: Final = 44


class Play:
    """One telling of the story."""

    def __init__(self, home: Home, state: State, log: SqliteExecutionLog, screen: Screen) -> None:
        self.books = Books()
        self._home, self._state, self._log, self._screen = home, state, log, screen
        self._scheduler = Scheduler(log)
        self._reader = Reader(home.path)
        self._seen: dict[str, int] = {}
        """Last event read of each flow."""
        self._sizes = {path: found.st_size for path, found in regular_files(state.job)}
        self._small = len(self._sizes) < SMALL
        self._crew = Crew(home, pause_seconds=PAUSE_SECONDS if self._small else 0.0)
        self._begun: set[str] = set()
        self._begun_here = False
        """True once the worker of now has begun a file's step."""
        self._indexed: set[bytes] = set()
        self._bytes = 0
        self._done_at_death = -1
        self._deaths_in_vain = 0
        self._killed_at = 0.0
        self._process = ""
        self._news_at = time.monotonic()
        self._revived = 0

    @property
    def total(self) -> tuple[int, int]:
        """Files and bytes there are to index."""
        return len(self._sizes), sum(self._sizes.values())

    async def run(self) -> FlowRecord:
        """Play until the flow has ended. Raises `DemoError` when it cannot."""
        await self._take_up()
        handle = await self._scheduler.schedule(index_tree.bind(self._state.job), id=FLOW_ID)
        if (
            await handle.record()
        ).status is TaskStatus.FAILED:  # a full disk, say, which has room again by now
            self._screen.event(
                "note", "the flow had failed; it is tried again, and what it completed is kept"
            )
            await handle.retry()
        self._start_worker()
        try:
            while True:
                await asyncio.sleep(TICK_SECONDS)
                self._follow()
                await self._look_after_worker()
                record = await handle.record()
                if record.status.is_terminal or record.status is TaskStatus.PARKED:
                    break
                if _asks(record):
                    await self._answer()
        finally:
            self._screen.no_bars()
            self._crew.stop()
        self._follow()
        if record.status is not TaskStatus.COMPLETED:
            raise DemoError(f"{await handle.why()}; see: ergon show {FLOW_ID} --log {self._home.log}")
        return record

    # -- following ---------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Read on in the ledger and move the bars."""
        lines = self._reader.new_lines()
        self.books.add_lines(lines)
        self._tell_silence(news=bool(lines))
        for line in lines:
            if line.event == "begin" and line.name == "index_file":
                self._begun.add(line.key)
                self._begun_here = True
            if line.event == "end" and line.name == "index_file":
                path = place_of(self._state.job, line.about)[len(place_of(self._state.job, "")) + 1 :]
                if path not in self._indexed:
                    self._indexed.add(path)
                    self._bytes += self._sizes.get(path, 0)
        if self._crew.pid and (first := next((line for line in lines if line.pid == self._crew.pid), None)):
            self._greet(first)
        files, size = self.total
        done = len(self._indexed)
        if done < files:
            self._screen.bar("files", done, files, f"{done:,} of {files:,}")
            self._screen.bar("data", self._bytes, size, f"{self._bytes / 1e6:,.0f} of {size / 1e6:,.0f} MB")
        else:
            self._screen.no_bars()

    def _tell_silence(self, *, news: bool) -> None:
        """Say once that nothing happens: a huge file takes its time, a broken worker says why in its log."""
        now = time.monotonic()
        if news or not self._crew.pid:
            self._news_at = now
        elif now - self._news_at > SILENCE_SECONDS:
            self._news_at = math.inf
            self._screen.event(
                "note",
                f"nothing began or ended for {SILENCE_SECONDS:.0f} s; the worker's log is {self._home.worker_log}",
            )

    def _greet(self, first: Line) -> None:
        """The first body of a new worker began."""
        if self._process == first.process:
            return
        self._process = first.process
        if self._killed_at:
            self._screen.event(
                "back",
                f"worker {first.pid} goes on after {time.monotonic() - self._killed_at:.2f} s: unfinished flows found "
                f"{self._revived:,} results in the log; only what was open runs again",
            )
            self._killed_at = 0.0

    async def _read_flow(self, flow_id: str) -> None:
        events = await self._log.history(flow_id, after=self._seen.get(flow_id, 0))
        if events:
            self._seen[flow_id] = events[-1].seq
            self.books.add_events(flow_id, events)

    async def read_everything(self) -> int:
        """Read the whole log; returns how many flows there are."""
        count, after = 0, None
        while True:
            flows, after = await self._log.list(FlowFilter(), limit=PAGE, after=after)
            for flow in flows:
                await self._read_flow(flow.id)
            count += len(flows)
            if after is None:
                return count

    # -- the worker's life -------------------------------------------------------------------------------------

    def _start_worker(self) -> None:
        self._crew.start()
        self._state.workers += 1
        self._home.save(self._state)
        if self._state.workers == 1:
            self._screen.event("start", f"worker {self._crew.pid}, a process of its own")

    async def _look_after_worker(self) -> None:
        """Start it again when it died; kill it when the time has come."""
        how = self._crew.ended()
        if how is not None:
            self._deaths_in_vain = (
                self._deaths_in_vain + 1 if len(self._indexed) == self._done_at_death else 1
            )
            await self._bury(how, f"worker ended by {how}")
            if self._deaths_in_vain >= FAILURES_MAX:
                raise self._crew.give_up()
            await asyncio.sleep(0.2)
            self._start_worker()
        elif self._kill_is_due():
            part = KILL_AT[self._state.kills]
            self._state.kills += 1
            await self._kill(f"at {part:.0%} of the files")
            self._start_worker()

    def _kill_is_due(self) -> bool:
        done, total = len(self._indexed), len(self._sizes)
        kills = self._state.kills
        if kills == len(KILL_AT) or done >= total:
            return False
        busy = self._crew.pid != 0 and self._process.startswith(f"{self._crew.pid}-")
        if self._small:
            return busy and self._begun_here and len(self._begun) >= total * KILL_AT[kills]
        return busy and done >= total * KILL_AT[kills] and done > max(self._done_at_death, 0)

    async def _kill(self, when: str) -> None:
        pid = self._crew.pid
        self._crew.kill()
        await self._bury(f"{OUR_KILL} {when}", f"SIGKILL to worker {pid} {when}")

    async def _bury(self, how: str, told: str) -> None:
        """The worker is dead: take stock of what it leaves behind."""
        self._killed_at = time.monotonic()
        self._follow()
        self._done_at_death = len(self._indexed)
        self._begun_here = False
        bodies = await self._open_bodies(self._process)
        await self._count_revived()
        self._state.deaths.append(Death(self._process, how, [_name(line) for line in bodies]))
        self._home.save(self._state)
        names = ", ".join(_name(line) for line in bodies[:NAMES_SHOWN])
        more = f" and {len(bodies) - NAMES_SHOWN} more" if len(bodies) > NAMES_SHOWN else ""
        doing = f", in the middle of {len(bodies)} steps: {names}{more}" if bodies else ""
        self._screen.event("kill", f"{told}{doing}")

    async def _open_bodies(self, process: str) -> list[Line]:
        for flow_id in {line.flow for line in self.books.open_in(process)}:
            await self._read_flow(flow_id)
        return self.books.open_in(process) if process else []

    async def _count_revived(self) -> None:
        """Results that unfinished flows will take from the log instead of running a body."""
        unfinished = tuple(status for status in TaskStatus if not status.is_terminal)
        flows, _ = await self._log.list(FlowFilter(statuses=unfinished), limit=PAGE)
        for flow in flows:
            await self._read_flow(flow.id)
        self._revived = sum(self.books.steps_of(flow.id) for flow in flows)
        self._state.revived += self._revived

    async def _take_up(self) -> None:
        """Learn what an earlier telling left, if there was one."""
        self._follow()
        if self._state.workers == 0:
            return
        self._screen.no_bars()
        last = max(
            (lines[-1] for lines in self.books.begins.values()), key=lambda line: line.at, default=None
        )
        bodies = await self._open_bodies(last.process) if last is not None else []
        await self._count_revived()
        self._killed_at = time.monotonic()
        if last is not None and last.process not in {death.process for death in self._state.deaths}:
            names = [_name(line) for line in bodies]
            self._state.deaths.append(Death(last.process, "the end of the demo that started it", names))
        self._screen.event(
            "note",
            f"an earlier demo was stopped after {len(self._indexed):,} files; this one goes on where it stood",
        )

    # -- the signal --------------------------------------------------------------------------------------------

    async def _answer(self) -> None:
        """The flow waits for a person. Show that nothing has to run meanwhile, then answer."""
        handle = self._scheduler.handle(FLOW_ID)
        self._screen.event("wait", f"ergon why {FLOW_ID}: {await handle.why()}")
        if self._crew.pid:
            pid = self._crew.pid
            self._crew.kill()
            await self._bury(
                f"{OUR_KILL} while the flow waited",
                f"SIGKILL to worker {pid} as well: a flow that waits needs no process",
            )
        answer = Confirmation(by=os.environ.get("USER") or "the demo")
        await handle.signal("confirm", answer, key="demo")
        self._screen.event(
            "sent", "the answer, while no worker lives: the log keeps it until the flow takes it"
        )
        self._start_worker()


def _asks(record: FlowRecord) -> bool:
    """True when the flow has left memory and waits for its signal."""
    return record.status is TaskStatus.SUSPENDED and any(
        wait.get("kind") == "signal" and wait.get("name") == "confirm" for wait in read_waits(record.reason)
    )


def _name(line: Line) -> str:
    """What a body did, short enough for a line: the end of a path tells most."""
    about = line.about if len(line.about) <= PATH_WIDTH else "…" + line.about[1 - PATH_WIDTH :]
    return f"{line.name} {about}".strip()
