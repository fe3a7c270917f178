"""The group commit: everything that waits becomes one transaction, and each part still succeeds or fails alone.

The fast path writes all commits with one statement a table and compares numbers of rows. When a number is wrong or
a row is refused, everything is rolled back and each part is applied by itself, in order, under a savepoint: slow,
exact, and rare. A batch that is one lone event, as the result of a step is when nothing else runs, needs no BEGIN and
no COMMIT: its one statement is a transaction by itself.

A transaction whose end is unknown (a failed write or fsync, no memory) is never guessed about. The connection is
reopened and asked: for the first event of a batch of commits, or for the batch's number in table `landed`, which
batches with other writes leave there.

Whatever a batch raises, its transaction is ended before anybody is answered: a lone event that is written into one left
open would be told durable, and lost with it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from ergon.core.commit import Commit, Hint
from ergon.errors import ErgonError, LogBusy, LogDamaged, LogRefused, LogTooNew, StoreError
from ergon.storage.clock import Clock
from ergon.storage.failpoints import Failpoint
from ergon.storage.sqlite import intake, journal
from ergon.storage.sqlite.errors import (
    FAILURES,
    is_busy,
    is_of_one_part,
    leaves_outcome_unknown,
    translate,
)
from ergon.storage.sqlite.migrations import new_writer
from ergon.storage.sqlite.place import Anchor
from ergon.storage.sqlite.transaction import Transaction
from ergon.storage.sqlite.turnstile import Turnstile
from ergon.storage.sqlite.writes import Create, Send, What, Write, claim_new

Errors = list["BaseException | None"]
_ATTEMPTS_MAX: Final = 2
_MARK: Final = (
    "INSERT INTO landed (writer, batch, at) VALUES (?, ?, ?) "
    "ON CONFLICT (writer) DO UPDATE SET batch = excluded.batch, at = excluded.at"
)
_DATA_ERRORS: Final = (UnicodeError, OverflowError, TypeError, sqlite3.InterfaceError)
"""What Python's sqlite3 raises for a value it cannot bind; SQLite never saw it."""


_NOT_REOPENED: Final = (*FAILURES, ErgonError, OSError)


class _Uneven(Exception):
    """A statement for many wrote fewer rows than it should."""


class GroupCommit:
    """Applies batches on the writer's connection. Lives on the writer's thread."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        *,
        turnstile: Turnstile,
        clock: Clock,
        where: str,
        failpoint: Failpoint | None,
        path: Path | None,
    ) -> None:
        self.connection = connect()
        self._anchor = Anchor(path) if path is not None else None
        self._connect, self._turnstile, self._clock, self._where = connect, turnstile, clock, where
        self._failpoint, self._path, self._in_memory = failpoint, path, path is None
        self._writer_id = new_writer()
        self._batch = 0
        self._marked = False
        self._changes_before = 0
        self.wrote = True
        """Whether the last batch may have written something: a claim that finds nothing has not."""
        self._needs_reopening = False
        self._answer: tuple[Errors | None, Hint | None] | None = None
        self._damaged: dict[int, float] = {}

    def close(self) -> None:
        """Close the connection. What was written stays."""
        if self._marked and not self._in_memory:
            with contextlib.suppress(*FAILURES):
                self.connection.execute("DELETE FROM landed WHERE writer = ?", (self._writer_id,))
        self._turnstile.close()
        self.connection.close()

    def apply(self, batch: Sequence[What]) -> tuple[Errors | None, Hint | None]:
        """Write a batch. Returns its errors in order (None: all went well) and what listeners should hear."""
        if self._failpoint is not None:
            self._failpoint.before([what.name if isinstance(what, Write) else "commit" for what in batch])
        self._batch += 1
        self.wrote = True
        try:
            result = self._apply(batch)
        except BaseException:
            self.roll_back()
            raise
        if self._failpoint is not None:
            self._failpoint.after()
        return result

    def _apply(self, batch: Sequence[What]) -> tuple[Errors | None, Hint | None]:
        try:
            if self._needs_reopening:
                self._reopen()
            elif self._anchor is not None:
                self._anchor.check()
        except _NOT_REOPENED as error:
            return [self._not_reopened(error, "nothing was written") for _ in batch], None
        failure: sqlite3.Error | MemoryError | None = None
        for attempt in range(1, _ATTEMPTS_MAX + 1):
            self._answer = None
            try:
                return self._attempt(batch)
            except FAILURES as error:
                self.roll_back()
                failure = error
            if self._in_memory or not leaves_outcome_unknown(failure):
                break
            try:
                self._reopen()
                landed = self._answer_if_landed(batch)
                if landed is not None:
                    return landed
            except _NOT_REOPENED as error:
                self._needs_reopening = True
                return self._unknown(batch, error), None
            if attempt == _ATTEMPTS_MAX:
                break
        assert failure is not None, "the loop ends by a failure"
        return [translate(failure, self._where) for _ in batch], None

    def _answer_if_landed(self, batch: Sequence[What]) -> tuple[Errors | None, Hint | None] | None:
        """What the batch would have been told, when its COMMIT landed though it reported an error."""
        answer = self._answer
        if answer is None or not self._has_landed(batch, answer[0]):
            return None
        errors, hint = answer
        return errors, replace(hint or Hint(), elsewhere=True)

    def _attempt(self, batch: Sequence[What]) -> tuple[Errors | None, Hint | None]:
        if len(batch) == 1 and self._is_written_lone(batch[0]):
            return None, None
        try:
            tx = self._begin()
            self._apply_together(tx, batch)
            self._answer = None, tx.hint()
            self._commit()
            return self._answer
        except (ErgonError, _Uneven, *_DATA_ERRORS):
            self.roll_back()
        except sqlite3.Error as error:
            if not is_of_one_part(error) and not _is_misuse(error):
                raise
            self.roll_back()
        tx = self._begin()
        errors = [self._apply_alone(tx, what) for what in batch]
        self._mark()
        self._answer = errors, tx.hint()  # COMMIT may report an error and land all the same
        self._commit()
        return self._answer

    def _is_written_lone(self, what: What) -> bool:
        """Write the result of a lone step with one statement instead of three. False: try it the usual way."""
        if type(what) is not Commit or not journal.is_lone(what) or not self._turnstile.is_free:
            return False
        self._answer = None, None
        try:
            if self.connection.in_transaction:
                return False  # it would be no transaction of its own
            journal.write_lone(self.connection, what)
        except _DATA_ERRORS:
            return False
        except sqlite3.Error as error:
            if is_busy(error) or is_of_one_part(error) or _is_misuse(error):
                return False  # nothing is written
            raise
        return True

    def _begin(self) -> Transaction:
        if self._needs_reopening or self.connection.in_transaction:
            raise LogBusy(
                f"log {self._where}: an earlier transaction could not be ended, nothing was written; the next write "
                "tries again"
            )
        self._turnstile.begin(self.connection)
        self._changes_before = self.connection.total_changes
        return Transaction(self.connection, self._clock.wall(), self._clock.boot(), self._damaged)

    def _apply_together(self, tx: Transaction, batch: Sequence[What]) -> None:
        commits: list[Commit] = []
        creates: list[Create] = []
        sends: list[Send] = []
        others: list[Write[Any]] = []
        for what in batch:
            kind = type(what)
            if kind is Commit:
                commits.append(what)  # type: ignore[arg-type]
            elif kind is Create:
                creates.append(what)  # type: ignore[arg-type]
            elif kind is Send:
                sends.append(what)  # type: ignore[arg-type]
            else:
                others.append(what)  # type: ignore[arg-type]
        if commits and not journal.apply(tx, commits):
            raise _Uneven
        if creates and intake.insert(tx, [create.flow for create in creates]) != len(creates):
            raise _Uneven
        claim_new(tx, creates)
        if sends and not intake.send(tx, [send.message for send in sends]):
            raise _Uneven
        for write in others:
            write.result = write.apply(tx)
        if len(commits) != len(batch) or not commits[0].events:
            self._mark()  # else the first event tells

    def _apply_alone(self, tx: Transaction, what: Commit | Write[Any]) -> BaseException | None:
        heard = tx.ready, tx.wake_at, set(tx.inbox), dict(tx.settled)
        self.connection.execute("SAVEPOINT part")
        try:
            if isinstance(what, Write):
                what.result = what.apply(tx)
            else:
                journal.apply_alone(tx, what)
        except sqlite3.Error as error:
            if not is_of_one_part(error) and not _is_misuse(error):
                raise
            failure: BaseException = translate(error, self._where)
        except (ErgonError, *_DATA_ERRORS) as error:
            failure = error
        else:
            self.connection.execute("RELEASE part")
            return None
        self.connection.execute("ROLLBACK TO part")
        self.connection.execute("RELEASE part")
        tx.ready, tx.wake_at, tx.inbox, tx.settled = heard
        tx.ended.clear()
        return failure

    def _commit(self) -> None:
        self.connection.execute("COMMIT")
        self.wrote = self.connection.total_changes != self._changes_before

    def _mark(self) -> None:
        """Leave the batch's number, unless nothing was written.

        A claim that finds nothing must not write, or two idle processes would wake each other for ever.
        """
        if not self._in_memory and self.connection.total_changes != self._changes_before:
            self.connection.execute(_MARK, (self._writer_id, self._batch, self._clock.wall()))
            self._marked = True

    def _has_landed(self, batch: Sequence[What], errors: Errors | None) -> bool:
        row = self.connection.execute(
            "SELECT batch FROM landed WHERE writer = ?", (self._writer_id,)
        ).fetchone()
        if row is not None and row[0] == self._batch:
            return True
        if errors is not None:
            return False  # applied part by part: the first event may have been there before
        first = batch[0]
        return isinstance(first, Commit) and journal.landed(self.connection, first)

    def roll_back(self) -> None:
        """End a transaction that is open still, with its connection if need be. Nobody was told that it is written."""
        try:
            # SQLite itself rolls back on some errors, such as a full disk.
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        except FAILURES:
            if self._in_memory:
                return  # all would be lost with the connection: the next write tries again
            self._needs_reopening = True
            with contextlib.suppress(*FAILURES):
                self.connection.close()

    def _reopen(self) -> None:
        self._needs_reopening = True
        with contextlib.suppress(*FAILURES):
            self.connection.close()
        self.connection = self._connect()
        self._anchor = Anchor(self._path) if self._path is not None else None
        self._needs_reopening = False

    def _unknown(self, batch: Sequence[What], error: Exception) -> Errors:
        """Answer a batch that may have landed while nobody can look.

        Repeating a commit or a new flow changes nothing if it landed, so these are told to come again.
        """
        return [
            self._not_reopened(error, "repeat this write, it is kept once")
            if isinstance(what, Commit | Create)
            else StoreError(f"{self._not_reopened(error, 'whether this was written is unknown')}")
            for what in batch
        ]

    def _not_reopened(self, error: Exception, outcome: str) -> StoreError:
        if isinstance(error, LogDamaged | LogRefused | LogTooNew):
            return error  # waiting will not help
        said = translate(error, self._where) if isinstance(error, FAILURES) else error
        return LogBusy(
            f"log {self._where}: could not be opened again after an error, {outcome}; "
            f"the next write tries again: {said}"
        )


def _is_misuse(error: sqlite3.Error) -> bool:
    """Tell whether Python's sqlite3 refused a value before SQLite saw it."""
    return isinstance(error, sqlite3.ProgrammingError) and not hasattr(error, "sqlite_errorcode")


__all__ = ["Errors", "GroupCommit", "StoreError"]
