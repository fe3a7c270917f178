"""The command line: every verb is thin over `Scheduler`, `Worker` and the execution log's catalog.

`app.py` finds verbs and turns errors into one line and an exit code; each verb group has a file of its own.
"""

from ergon.cli.app import main

__all__ = ["main"]
