"""Open a session with the settings the promises rest on, and look where it leads.

Where a session is ours from end to end, its settings are made as it begins. Behind a pooler that hands each
transaction to another session (pgbouncer) they are made at the start of each transaction, for that one alone, and
nothing is prepared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ergon.errors import LogRefused
from ergon.storage.postgres.address import Address
from ergon.storage.postgres.clock import ServerClock
from ergon.storage.postgres.driver import Connection, Row, dial, driver

CONNECT_SECONDS: Final = 10.0
LOCK_SECONDS: Final = 10
"""How long a statement waits for a row that another transaction holds."""
IDLE_SECONDS: Final = 5
"""How long a transaction may rest before the server ends it: what a frozen process holds locked is free again before
another worker's lease could run out because of it."""
_VERSION_MIN: Final = 130000

_SESSION: Final = {
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    "lock_timeout": f"{LOCK_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    # Every statement here goes by an index, whatever the planner has heard of tables that grew a minute ago.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}

_GREET: Final = """
SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), pg_is_in_recovery(),
       extract(epoch FROM clock_timestamp())::float8, set_config('search_path', quote_ident($1) || ', pg_temp', $2)
"""
BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_BEGUN: Final = "SELECT extract(epoch FROM clock_timestamp())::float8"
_BEGUN_POOLED: Final = f"""
SELECT extract(epoch FROM clock_timestamp())::float8, set_config('search_path', quote_ident($1) || ', pg_temp', true),
       set_config('synchronous_commit', 'on', true), set_config('lock_timeout', '{LOCK_SECONDS}s', true),
       set_config('idle_in_transaction_session_timeout', '{IDLE_SECONDS}s', true),
       set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true)
"""  # noqa: S608 - from our own constants


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a log reaches its server."""

    address: Address
    patience_seconds: float
    """How long a write waits for a server that cannot be reached, or that does not answer."""

    @property
    def where(self) -> str:
        """The log's name in messages."""
        return self.address.url


class Standby(LogRefused):
    """The server only reads: a standby, or a primary that became one."""


async def open_session(settings: Settings, clock: ServerClock) -> Connection:
    """Open a session and look where it leads. Raises the driver's errors, and `LogRefused`."""
    address = settings.address
    driver()
    timeout = max(min(CONNECT_SECONDS, settings.patience_seconds), 0.1)
    options = {"user": address.user, "password": address.password, "timeout": timeout}
    if address.pgbouncer:
        connection = await dial(address.dsn, statement_cache_size=0, **options)
    else:
        named = {"application_name": address.application, **_SESSION}
        connection = await dial(
            address.dsn,
            server_settings=named,
            statement_cache_size=256,
            max_cached_statement_lifetime=0,
            **options,
        )
    try:
        await _greet(connection, settings, clock)
    except BaseException:
        connection.terminate()
        raise
    return connection


async def begin(connection: Connection, address: Address) -> float:
    """Begin a transaction; return the server's time."""
    await connection.execute(BEGIN)
    if address.pgbouncer:
        row = await connection.fetchrow(_BEGUN_POOLED, address.schema)
    else:
        row = await connection.fetchrow(_BEGUN)
    assert row is not None, "the statement returns one row"
    return float(row[0])


async def _greet(connection: Connection, settings: Settings, clock: ServerClock) -> None:
    pooled = settings.address.pgbouncer
    if pooled:
        await connection.execute("BEGIN")
    row = await connection.fetchrow(_GREET, settings.address.schema, pooled)
    if pooled:
        await connection.execute("ROLLBACK")
    assert row is not None, "the statement returns one row"
    _check(row, settings.where)
    clock.forget()
    clock.read(row[3])


def _check(row: Row, where: str) -> None:
    version, encoding, is_standby = row[:3]
    if version < _VERSION_MIN:
        raise LogRefused(
            f"log {where}: PostgreSQL {version // 10000} is too old; Ergon needs 13 or later, upgrade the server"
        )
    if encoding != "UTF8":
        raise LogRefused(
            f"log {where}: the database is encoded in {encoding}; create one with ENCODING 'UTF8'"
        )
    if is_standby:
        raise Standby(
            f"log {where}: this server is a standby, which only reads; name the primary, or all servers and "
            "target_session_attrs=read-write"
        )
