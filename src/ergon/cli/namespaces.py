"""`ergon namespaces`: which logs there are beside the one at a place."""

from __future__ import annotations

import click

from ergon.cli.options import asynchronous, json_option, log_option
from ergon.cli.output import note, print_json, table
from ergon.cli.problems import OK
from ergon.cli.rows import NAMESPACE, fields_of
from ergon.opening import list_namespaces, open_log


@click.command(
    epilog=fields_of("--json prints an array; a namespace has:", NAMESPACE),
    short_help="List the namespaces of a log.",
)
@log_option
@json_option
@asynchronous
async def namespaces(url: str | None, as_json: bool) -> int:
    """List the namespaces at the log's place, whichever of them is chosen. Exits 0 when there is none, too.

    A namespace is a log of its own: `--namespace NAME` beside `--log` leads to it. It exists once a program has run
    flows in it.
    """
    names = await list_namespaces(url or None)
    rows = [(name, open_log(url or None, namespace=name).url) for name in names]
    if as_json:
        print_json([dict(zip(NAMESPACE, row, strict=True)) for row in rows])
    elif rows:
        table(("NAMESPACE", "LOG"), rows)
    else:
        note(f"no namespaces at {open_log(url or None, namespace='').url}")
    return OK
