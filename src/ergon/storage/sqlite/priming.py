"""Prepare the statements of a first flow while there is nothing to write.

SQLite takes up to half a millisecond to prepare one of them, 2 ms for those of one flow from its creation to its end.
The writer's thread has that time twice before the first flow comes, while the event loop makes a worker and registers
it.
"""

from __future__ import annotations

import contextlib
import sqlite3

from ergon.storage.sqlite import claims, ended, intake, journal, leases
from ergon.storage.sqlite.errors import FAILURES


def first_statements() -> list[str]:
    """What a flow needs that is created as a worker's own, the last first."""
    return [*leases.FIRST, *ended.FIRST, *journal.FIRST, *intake.FIRST]


def claim_statements() -> list[str]:
    """What a claim needs besides, the last first. In a new log nothing is claimed: these must not delay a write."""
    return [*claims.LATER, *claims.FIRST]


def prepare(connection: sqlite3.Connection, statement: str) -> None:
    """Prepare a statement that takes values, and do not run it.

    Without its values it fails before it starts, and stays among the connection's prepared statements.
    """
    with contextlib.suppress(*FAILURES):  # whoever runs it meets any other error
        connection.execute(statement)
