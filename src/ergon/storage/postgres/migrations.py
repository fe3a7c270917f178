"""Bring a schema to this version's tables, or say why it is not ours to touch.

`schema/NNNN_name.sql` are applied in order, all that are missing in one transaction under an advisory lock that ends
with it, so that it works behind a pooler too. They are never edited after a release. Row `schema_version` of table
`meta` is the number of the last one. Code of one version works on the schema of the next (`compatible_from` says
whether it may), so that workers can be replaced one by one.

A migration that older code must not live to see raises `compatible_from`. Whoever has the log open is then stopped in
the same transaction, and the usual write pays nothing for it: every worker is declared dead, so that no commit of
theirs matches, and a constraint refuses the writers of older code in table `landed`, where all other transactions end.

A crash while this runs leaves the schema as it was: PostgreSQL rolls tables back like rows.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final
from uuid import uuid4

from ergon.core.release import VERSION
from ergon.errors import LogDamaged, LogRefused, LogTooNew
from ergon.storage.postgres.connection import Settings
from ergon.storage.postgres.driver import Connection
from ergon.storage.postgres.errors import TOO_OLD, code_of, said
from ergon.storage.postgres.transaction import Transaction

APPLICATION: Final = "ergon"
_LOOK: Final = """
SELECT n.there, n.may AND to_regclass(quote_ident($1) || '.meta') IS NOT NULL,
       EXISTS (SELECT 1 FROM pg_class
               WHERE relnamespace = to_regnamespace(quote_ident($1)) AND relkind IN ('r', 'v', 'p')), n.may
FROM (SELECT to_regnamespace(quote_ident($1)) IS NOT NULL AS there,
             coalesce(has_schema_privilege(to_regnamespace(quote_ident($1))::oid, 'USAGE'), true) AS may) AS n
"""
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('ergon ' || $1, 0))"


@cache
def migrations() -> tuple[tuple[int, str], ...]:
    """Return every migration as its number and text, in order."""
    folder = Path(__file__).with_name("schema")
    files = sorted(file for file in folder.iterdir() if file.name[:4].isdecimal())
    return tuple((int(file.name[:4]), file.read_text(encoding="utf-8")) for file in files)


async def inspect(connection: Connection, settings: Settings) -> int:
    """Return the schema's version; 0 when it is not there or empty. Changes nothing."""
    where, schema = settings.where, settings.address.schema
    row = await connection.fetchrow(_LOOK, schema)
    assert row is not None, "the statement returns one row"
    _, has_meta, has_tables, may_use = row
    if not may_use:
        raise LogRefused(f"log {where}: the role may not use schema {schema!r}; {_grant(schema)}")
    if not has_meta:
        if has_tables:
            raise LogRefused(
                f"log {where}: schema {schema!r} holds tables of another program; give Ergon one of its own, with "
                "schema=..."
            )
        return 0
    try:
        facts = {row[0]: row[1] for row in await connection.fetch("SELECT key, value FROM meta")}
    except Exception as error:
        if code_of(error) == "42501":
            raise LogRefused(
                f"log {where}: the role may not read schema {schema!r}; {_grant(schema)}"
            ) from error
        if code_of(error) in ("42703", "42P01"):
            facts = {}
        else:
            raise
    if facts.get("application") != APPLICATION:
        raise LogRefused(
            f"log {where}: table meta of schema {schema!r} is another program's; give Ergon a schema of its own, with "
            "schema=..."
        )
    return _version(facts, where)


async def migrate(tx: Transaction, settings: Settings) -> None:
    """Apply what is missing. Several processes may try at once; the advisory lock decides."""
    await tx.rows(_LOCK, settings.address.schema)
    version = await inspect(tx.connection, settings)
    schema = settings.address.schema
    try:
        row = await tx.one(_LOOK, schema)
        if row is not None and not row[0]:
            made = await tx.one("SELECT format('CREATE SCHEMA %I', $1::text)", schema)
            assert made is not None, "the statement returns one row"
            await tx.connection.execute(made[0])
        for number, text in migrations():
            if number > version:
                before = await _compatible_from(tx) if number > 1 else 1
                await tx.connection.execute(text)
                await _note(tx, number)
                if (oldest := await _compatible_from(tx)) > before:
                    await _stop_older(tx, oldest)
    except Exception as error:
        if code_of(error) != "42501":
            raise
        raise LogRefused(
            f"log {settings.where}: the role may not create tables ({said(error)}); let one that may connect once, or "
            f"grant it CREATE on the database, or on schema {schema!r} made beforehand"
        ) from error


def check_current(version: int, settings: Settings) -> None:
    """Raise `LogRefused` unless the tables are this version's, for a role that may not make them so."""
    newest = migrations()[-1][0]
    if version >= newest:
        return
    schema = settings.address.schema
    if not version:
        raise LogRefused(
            f"there is no log at {settings.where}: schema {schema!r} has no tables of Ergon's. Name another, or let a "
            "program that runs flows make them, as a role that may (not with migrate=False)"
        )
    raise LogRefused(
        f"log {settings.where}: schema {schema!r} has schema version {version}, this Ergon needs {newest}, and "
        "migrate=False leaves it so; "
        "connect once without migrate=False, as a role that may create tables"
    )


async def generation(connection: Connection, where: str) -> str:
    """Return the id made with the tables: another id is another log."""
    row = await connection.fetchrow("SELECT value FROM meta WHERE key = 'generation'")
    if row is None:
        raise LogDamaged(f"log {where} has lost its generation id; restore a backup")
    return str(row[0])


async def _note(tx: Transaction, number: int) -> None:
    if number == 1:
        row = await tx.one("SELECT current_setting('server_version')")
        assert row is not None, "the statement returns one row"
        facts = {
            "application": APPLICATION,
            "generation": uuid4().hex,
            "created_by": f"ergon {VERSION}, PostgreSQL {row[0]}",
            "compatible_from": "1",
        }
        for key, value in facts.items():
            await tx.write("INSERT INTO meta (key, value) VALUES ($1, $2)", key, value)
    await tx.write(
        "INSERT INTO meta (key, value) VALUES ('schema_version', $1) "
        "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        str(number),
    )


_STOP_OLDER: Final = (
    "UPDATE workers SET state = 'dead' WHERE state IN ('alive', 'draining')",
    "SELECT 1 FROM flows WHERE owner IS NOT NULL ORDER BY id FOR NO KEY UPDATE",
    "UPDATE flows SET status = 'pending', owner = NULL, ready_at = {now!r}, claimed_seq = NULL WHERE owner IS NOT NULL",
    f"ALTER TABLE landed DROP CONSTRAINT IF EXISTS {TOO_OLD}",
    # Whoever landed before may stay; NOT VALID looks at new rows only.
    f"ALTER TABLE landed ADD CONSTRAINT {TOO_OLD} CHECK (writer COLLATE \"C\" >= '{{oldest:04d}}') NOT VALID",
)
"""Last the table in which other transactions end: none of them waits for anything any more once it is there."""


async def _stop_older(tx: Transaction, oldest: int) -> None:
    for statement in _STOP_OLDER:
        await tx.connection.execute(statement.format(now=tx.now, oldest=oldest))


async def _compatible_from(tx: Transaction) -> int:
    row = await tx.one("SELECT value FROM meta WHERE key = 'compatible_from'")
    return int(row[0]) if row is not None else 0


def new_writer() -> str:
    """A name in table `landed`: it begins with the schema that this code knows."""
    return f"{migrations()[-1][0]:04d}-{uuid4().hex}"


def _version(facts: dict[str, str], where: str) -> int:
    try:
        version, compatible = int(facts["schema_version"]), int(facts["compatible_from"])
    except (KeyError, ValueError):
        raise LogDamaged(f"log {where}: table meta has lost the schema's version; restore a backup") from None
    newest = migrations()[-1][0]
    if version > newest and (version != newest + 1 or compatible > newest):
        raise LogTooNew(
            f"log {where} has schema version {version}, this Ergon knows up to {newest}; upgrade this process"
        )
    return version


def _grant(schema: str) -> str:
    return f"grant it USAGE on the schema {schema!r}, and SELECT, INSERT, UPDATE and DELETE on its tables"
