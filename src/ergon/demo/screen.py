"""How the demo looks: one line for each thing that happens, bars while it works, a table at the end.

On a terminal the bars move; elsewhere a line is printed for every fifth of the way.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

STYLES: Final = {
    "kill": "bold red",
    "back": "green",
    "wait": "yellow",
    "sent": "cyan",
    "done": "bold green",
    "wrong": "bold red",
    "note": "yellow",
}


class Screen:
    """What the audience sees."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("  {task.description:<6}"),
            BarColumn(bar_width=32),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._bars: dict[str, TaskID] = {}
        self._fifths: dict[str, int] = {}

    def title(self, text: str) -> None:
        """A heading."""
        self._console.print()
        self._console.print(text, style="bold", soft_wrap=True)

    def plain(self, text: str) -> None:
        """A sentence."""
        self._console.print(f"  {text}", soft_wrap=True)

    def event(self, tag: str, text: str) -> None:
        """Something happened."""
        line = Text(f"  {tag:<6}", style=STYLES.get(tag, "dim"))
        line.append(f" {text}", style="default")
        self._console.print(line, soft_wrap=True)

    def bar(self, name: str, done: int, total: int, state: str) -> None:
        """How far something is."""
        if not self._console.is_terminal:
            fifth = 5 * done // max(total, 1)
            if fifth > self._fifths.get(name, 0):
                self._fifths[name] = fifth
                self.event(name, state)
            return
        if not self._bars:
            self._progress.start()
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, total=max(total, 1), state=state)
        self._progress.update(self._bars[name], completed=done if total else 1, state=state)

    def no_bars(self) -> None:
        """Take the bars away."""
        self._progress.stop()
        for bar in self._bars.values():
            self._progress.remove_task(bar)
        self._bars.clear()

    def numbers(self, rows: Sequence[tuple[str, str, bool | None]]) -> None:
        """What, how many, and whether it is as promised (None: a plain number)."""
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 2))
        table.add_column()
        table.add_column(justify="right")
        table.add_column()
        for what, count, kept in rows:
            mark = Text("") if kept is None else Text("ok", "green") if kept else Text("BROKEN", "bold red")
            table.add_row(Text(what), Text(count, style="bold"), mark)
        self._console.print(table)

    def commands(self, title: str, lines: Sequence[tuple[str, str]]) -> None:
        """Commands to try, each with what it is for."""
        self.title(title)
        width = max(len(command) for command, _ in lines)
        for command, purpose in lines:
            line = Text(f"  {command:<{width}}", style="cyan")
            line.append(f"   {purpose}" if purpose else "", style="dim")
            self._console.print(line, soft_wrap=True)


def quoted(path: object) -> str:
    """A path as a shell takes it."""
    return shlex.quote(str(path))


def ergon_here() -> str:
    """The command `ergon` as a shell finds it where this one was started: not every environment is activated."""
    script = Path(sys.argv[0])
    if script.stem != "ergon":
        return f"{quoted(_below(Path(sys.executable)))} -m ergon"
    found = shutil.which("ergon")
    if found is not None and script.exists() and Path(found).samefile(script):
        return "ergon"
    return quoted(_below(script))


def _below(path: Path) -> str:
    """The path as one would type it here. Links stay: the one to an environment's Python is what makes it that."""
    path, here = path.absolute(), Path.cwd()
    if not path.is_relative_to(here):
        return str(path)
    below = str(path.relative_to(here))
    return below if os.sep in below else os.path.join(".", below)  # a shell takes a bare name for a command's
