"""Make the image that new logs begin as: `python -m tests.storage.sqlite.make_blank`, whenever the schema changes."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

from ergon.storage.sqlite import blank, migrations
from ergon.storage.sqlite.turnstile import Turnstile


def make_blank(file: Path) -> None:
    """Make the image in `file`, which must not be there, from the migrations."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA page_size=4096")
    connection.execute("PRAGMA journal_mode=WAL")
    migrations.migrate(connection, Turnstile(patience_seconds=5), str(file), 0.0)
    connection.executemany(
        "UPDATE meta SET value = ? WHERE key = ?",
        [
            (blank.GENERATION.decode(), "generation"),
            (blank.CREATED_BY.decode(), "created_by"),
            (blank.CREATED_AT.decode(), "created_at"),
        ],
    )
    connection.execute("VACUUM")  # leaves no trace of the values before
    connection.close()  # and with it everything is in the file


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "blank.db"
        make_blank(made)
        blank.IMAGE.write_bytes(made.read_bytes())
