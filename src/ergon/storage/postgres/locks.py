"""Lock flows' rows, always in the order of their ids, so that two transactions do not wait for each other in a ring.

Under READ COMMITTED each statement sees what was committed before it began. So the row of a flow is locked first, and
whatever depends on its state is asked for by a later statement, which sees all that was done under that lock before:

- a message and a flow going to sleep: one comes first; the second finds the unread message, or wakes the sleeper.
- a commit and whoever takes the flow away (pause, kill, reaper): the commit lands before, or finds another owner.
- two claims: the second passes over what the first has locked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ergon.storage.postgres.statements import statements
from ergon.storage.postgres.transaction import Transaction, distinct

_SQL: Final = statements("journal.sql")
Standing = tuple[str, str | None, int]
"""Status, owner, epoch."""


async def lock(tx: Transaction, flows: Iterable[str], ending: Iterable[str] = ()) -> dict[str, Standing]:
    """Lock these flows, and the parents and children of those that are about to end; return how they stand."""
    rows = await tx.rows(_SQL["lock"], distinct(flows), distinct(ending))
    return {row[0]: (row[1], row[2], row[3]) for row in rows}
