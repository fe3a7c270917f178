"""The execution log on PostgreSQL."""

from ergon.storage.postgres.log import PostgresExecutionLog

__all__ = ["PostgresExecutionLog"]
