"""Which file is a namespace's, and which namespaces have one."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from ergon.core.namespaces import namespace_of, with_namespace
from ergon.storage.sqlite.migrations import APPLICATION_ID


def beside(path: Path, namespace: str) -> Path:
    """The file of a namespace: `orders__acme.db` beside `orders.db`; without one the file itself."""
    return path.with_name(with_namespace(path.stem, namespace) + path.suffix) if namespace else path


def present(path: Path) -> list[str]:
    """The namespaces beside a file, sorted. Blocks while it looks at them."""
    path = path.absolute()
    if not path.parent.is_dir():
        return []
    found = (
        (namespace_of(file.stem, path.stem), file)
        for file in path.parent.iterdir()
        if file.suffix == path.suffix and file.is_file()
    )
    return sorted(name for name, file in found if name is not None and _is_log(file))


def _is_log(file: Path) -> bool:
    """Whether it is one of ours. Asked of SQLite: the header of a young file may still be in its write-ahead log.

    Not of an empty file: that is no log yet, and where it was one SQLite would delete what is left beside it.
    """
    if not file.stat().st_size:
        return False
    with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            return bool(connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID)
        except sqlite3.Error:
            return False
