"""What tells whether a transaction has landed whose answer was lost: its number, in its connection's row of `landed`.

A number is written together with what it stands for, and never after somebody asked for it: whoever asks while the
transaction is under way waits for the row until that has ended; whoever comes before it closes its number, and the
transaction, should it reach the server after all, finds that and fails. So the answer stays true.
"""

from __future__ import annotations

from typing import Final

from ergon.storage.postgres.transaction import Transaction

ASK: Final = (
    "INSERT INTO landed AS l (writer, batch, at) VALUES ($1, -$2::bigint, $3) "
    "ON CONFLICT (writer) DO UPDATE SET at = excluded.at, "
    "batch = CASE WHEN l.batch = $2::bigint THEN l.batch ELSE -$2::bigint END RETURNING l.batch"
)


def mark_and_commit(writer: str, number: int, now: float) -> str:
    """How a transaction ends, in one way to the server: it writes its number and commits, or fails and does neither.

    Reading a sentence as a number is how a statement fails that has found its number closed.
    """
    return (
        f"INSERT INTO landed AS l (writer, batch, at) VALUES ('{writer}', {number:d}, {now!r}) "  # noqa: S608 - ours
        "ON CONFLICT (writer) DO UPDATE SET at = excluded.at, "
        "batch = CASE WHEN abs(l.batch) < excluded.batch THEN excluded.batch "
        "ELSE ('ergon: no fault, this transaction was given up, batch ' || l.batch)::bigint END; COMMIT"
    )


async def ask(tx: Transaction, writer: str, number: int) -> bool:
    """Tell whether the transaction with this number has landed; from now on it never will, if it has not."""
    row = await tx.one(ASK, writer, number, tx.now)
    return row is not None and int(row[0]) == number
