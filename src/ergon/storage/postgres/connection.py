"""Open a session with the settings the promises rest on, on the server that takes writes, and look where it leads.

Of several servers, the one that was found to take writes is dialled first from then on, by every session of the log:
a machine that is gone answers nobody, and each dial to it would cost its whole time again. Sessions that still lead to
another one are given up (`Turn`). A primary that was replaced and comes back is known by its timeline, which each
promotion makes greater; only a process that has not seen the new one yet may take it for the primary.

Where a session is ours from end to end, its settings are made as it begins. Behind a pooler that hands each
transaction to another session (pgbouncer) they are made at the start of each transaction, for that one alone, and
nothing is prepared.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ergon.errors import LogBusy, LogRefused
from ergon.storage.outage import Outage
from ergon.storage.postgres.address import Address, Server
from ergon.storage.postgres.clock import ServerClock
from ergon.storage.postgres.driver import Connection, Row, dial, driver
from ergon.storage.postgres.errors import is_cut, said

logger: Final = logging.getLogger("ergon.storage")

CONNECT_SECONDS: Final = 10.0
"""For all servers of a log together, each of which gets its part."""
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
       current_setting('transaction_read_only')::bool, extract(epoch FROM clock_timestamp())::float8,
       set_config('search_path', quote_ident($1) || ', pg_temp', $2)
"""
_TIMELINE: Final = "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)"
BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_BEGUN: Final = "SELECT extract(epoch FROM clock_timestamp())::float8"
_BEGUN_POOLED: Final = f"""
SELECT extract(epoch FROM clock_timestamp())::float8, set_config('search_path', quote_ident($1) || ', pg_temp', true),
       set_config('synchronous_commit', 'on', true), set_config('lock_timeout', '{LOCK_SECONDS}s', true),
       set_config('idle_in_transaction_session_timeout', '{IDLE_SECONDS}s', true),
       set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true)
"""  # noqa: S608 - from our own constants


@dataclass(slots=True)
class Turn:
    """What the sessions of a log know in common of its servers."""

    place: int = 0
    """Which one was the last that was found to take writes."""
    timeline: int = 0
    """The greatest that was seen; 0 where there is one server only, as it is not asked then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a log reaches its server."""

    address: Address
    patience_seconds: float
    """How long a write waits for a server that cannot be reached, or that does not answer."""
    turn: Turn = field(default_factory=Turn)
    outage: Outage = field(default_factory=Outage)

    @property
    def where(self) -> str:
        """The log's name in messages."""
        return self.address.url


class Standby(LogRefused):
    """The server only reads: a standby, or a primary that became one."""


class Replaced(Standby):
    """The server takes writes that nobody wants: another one has become the primary since."""


class NonePrimary(LogBusy):
    """None of several servers takes writes now: one may be about to."""


def is_away(error: BaseException) -> bool:
    """Tell whether no session that writes can be had, or the one that was there is gone: dial again."""
    return is_cut(error) or isinstance(error, Standby | NonePrimary)


async def open_session(settings: Settings, clock: ServerClock) -> Connection:
    """Open a session on the server that takes writes. Raises the driver's errors, and `LogRefused` or `LogBusy`."""
    driver()
    servers, turn = settings.address.servers, settings.turn
    seconds = max(min(CONNECT_SECONDS, settings.patience_seconds) / len(servers), 0.1)
    first, failures = turn.place, list[tuple[Server, Exception]]()
    for number in range(len(servers)):
        place = (first + number) % len(servers)
        try:
            async with asyncio.timeout(seconds):
                connection = await _open_on(servers[place], settings, clock)
        except Exception as error:
            if len(servers) == 1 or not is_away(error):
                raise
            failures.append((servers[place], error))
        else:
            if turn.place != place:
                turn.place = place
                logger.info("log %s: %s takes writes now", settings.where, servers[place].name)
            return connection
    raise _none_of(failures, settings.where) from failures[-1][1]


async def _open_on(server: Server, settings: Settings, clock: ServerClock) -> Connection:
    address = settings.address
    # Whether it takes writes is a question of our own: the driver would ask another time.
    options = {"user": address.user, "password": address.password, "target_session_attrs": "any"}
    if address.pgbouncer:
        connection = await dial(server.dsn, statement_cache_size=0, **options)
    else:
        named = {"application_name": address.application, **_SESSION}
        connection = await dial(
            server.dsn,
            server_settings=named,
            statement_cache_size=256,
            max_cached_statement_lifetime=0,
            **options,
        )
    try:
        await _greet(connection, settings, clock)
        if len(address.servers) > 1:
            await _compare(connection, settings)
    except BaseException:
        connection.terminate()
        raise
    return connection


def _none_of(failures: Sequence[tuple[Server, Exception]], where: str) -> NonePrimary:
    """Say of each server why it is not the one."""
    reasons = "; ".join(f"{server.name} {_reason(error)}" for server, error in failures)
    return NonePrimary(f"log {where}: none of its servers takes writes now, try again: {reasons}")


def _reason(error: Exception) -> str:
    if isinstance(error, Replaced):
        return "was replaced by another primary, stop it"
    if isinstance(error, Standby):
        return "only reads"
    if isinstance(error, TimeoutError):
        return "does not answer"
    return f"cannot be reached ({said(error)})"


async def begin(connection: Connection, address: Address) -> float:
    """Begin a transaction; return the server's time."""
    await connection.execute(BEGIN)
    if not address.pgbouncer:
        return await server_time(connection)
    row = await connection.fetchrow(_BEGUN_POOLED, address.schema)
    assert row is not None, "the statement returns one row"
    return float(row[0])


async def server_time(connection: Connection) -> float:
    """Read the server's clock."""
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
    clock.read(row[4])


async def _compare(connection: Connection, settings: Settings) -> None:
    row = await connection.fetchrow(_TIMELINE)
    assert row is not None, "the statement returns one row"
    timeline, turn = int(row[0], 16), settings.turn
    if timeline < turn.timeline:
        raise Replaced(f"log {settings.where}: this server was replaced by another primary; stop it")
    turn.timeline = timeline


def _check(row: Row, where: str) -> None:
    version, encoding, is_standby, only_reads = row[:4]
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
            f"log {where}: this server is a standby, which only reads; name the primary, or all servers, separated by "
            "commas"
        )
    if only_reads:
        raise Standby(
            f"log {where}: sessions here only read, as default_transaction_read_only is on; turn it off for this role "
            "and database, or name another server"
        )
