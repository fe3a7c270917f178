"""The command line: every verb is thin over `Scheduler`, `Worker` and the execution log's catalog.

`app.py` finds verbs and turns errors into one line and an exit code; each verb group has a file of its own.
"""

from __future__ import annotations

import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line and exit. Ctrl-C is quiet from here on, also while the rest is being imported."""
    try:
        from ergon.cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()
