"""`ergon demo`: the verb; the demo itself is `ergon.demo`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from ergon.cli.output import console, note
from ergon.cli.problems import FAILED, INTERRUPTED, OK, BadInput


@click.command(short_help="Watch a flow index real files while its worker is killed.")
@click.argument("directory", required=False, type=click.Path(exists=True, file_okay=False))
@click.option("--fresh", is_flag=True, help="Start over, forgetting an unfinished demo.")
@click.option(
    "--dir",
    "place",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("ergon-demo"),
    show_default=True,
    help="Where the demo keeps its files.",
)
def demo(directory: str | None, fresh: bool, place: Path) -> int:
    """Watch a durable flow index real files while its worker process is killed again and again.

    DIRECTORY is what to index; default: the standard library of this Python. Stop it at any time, by Ctrl-C or harder;
    the same command goes on. Exits 0 when every file was indexed right and no finished step ran twice, else 1.
    """
    from ergon.demo.home import DemoError
    from ergon.demo.show import show

    try:
        holds = asyncio.run(show(directory, place, fresh=fresh, console=console()))
    except DemoError as error:
        raise BadInput(str(error)) from None
    except KeyboardInterrupt:
        note("stopped. The same command goes on where it stood; --fresh starts over")
        return INTERRUPTED
    return OK if holds else FAILED
