"""The execution log on one SQLite file, or on a private database in memory."""

from ergon.storage.sqlite.log import InMemoryExecutionLog, SqliteExecutionLog

__all__ = ["InMemoryExecutionLog", "SqliteExecutionLog"]
