"""The group commit: everything that waits becomes one transaction, and each part still succeeds or fails alone.

Four ways, each slower and more exact than the one before:

1. Commits of events alone, which is what running steps make, are one statement and by that a transaction. A commit
   whose lease does not hold adds no row, so only the number of rows has to be compared. Repeated after a cut
   connection it either writes what it did not write before, or meets it.
2. What most other batches hold is one statement too, with new flows and flows that are let go. It lands whole or not
   at all, see `usual.py`.
3. One transaction with one statement a table. All flows are locked first and leases compared here, so one that does
   not hold costs the others nothing.
4. When a statement fails or counts wrong, everything is rolled back, and each part is applied alone, in order, under a
   savepoint.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from ergon.core.commit import Commit, Hint
from ergon.errors import ErgonError
from ergon.storage.failpoints import Failpoint
from ergon.storage.postgres import intake, journal
from ergon.storage.postgres.appends import append, has_only_events
from ergon.storage.postgres.errors import code_of, is_of_one_part, translate
from ergon.storage.postgres.lane import Lane
from ergon.storage.postgres.transaction import Transaction
from ergon.storage.postgres.usual import Usual, sort_out, write
from ergon.storage.postgres.writes import Create, Send, What, name_of

Errors = list["BaseException | None"]
_UNIQUE: Final = "23505"
_NOT_THERE: Final = "0A000"
"""A server that spreads tables over machines may lack what one statement for a whole batch needs."""
_PASS: Final = 16


class GroupCommit:
    """Applies batches on one lane."""

    def __init__(self, lane: Lane, *, where: str, failpoint: Failpoint | None) -> None:
        self._lane, self._where, self._failpoint = lane, where, failpoint
        self._pass = 0
        """How many batches to take for unusual, since one was: they are likely to be alike."""

    async def apply(self, batch: Sequence[What]) -> tuple[Errors | None, Hint | None]:
        """Write a batch. Returns its errors in order (None: all went well) and what listeners should hear."""
        if self._failpoint is not None:
            self._failpoint.before([name_of(what) for what in batch])
        answer = await self._apply(batch)
        if self._failpoint is not None:
            self._failpoint.after()
        return answer

    async def _apply(self, batch: Sequence[What]) -> tuple[Errors | None, Hint | None]:
        try:
            if await self._is_appended(batch):
                return None, None
            usual = self._usual(batch)
            if usual is not None:
                try:
                    return None, await self._lane.write_at_once(partial(write, usual))
                except Exception as error:
                    if not is_of_one_part(error) and code_of(error) != _NOT_THERE:
                        raise
                    self._pass = _PASS if is_of_one_part(error) else sys.maxsize
            try:
                return await self._lane.transact(
                    lambda tx: _together(tx, batch), repeatable=True, exact=False
                )
            except Exception as error:
                if not isinstance(error, journal.Refused) and not is_of_one_part(error):
                    raise
            alone = self._alone(batch)
            return await self._lane.transact(alone, repeatable=True, exact=False)
        except Exception as error:  # noqa: BLE001 - whoever submitted hears of it
            failure = translate(error, self._where)
            return [failure for _ in batch], None

    def _usual(self, batch: Sequence[What]) -> Usual | None:
        """The batch sorted out, when it can be written by one statement and that is worth trying."""
        if self._pass:
            self._pass -= 1
            return None
        return None if self._lane.is_pooled else sort_out(batch)

    async def _is_appended(self, batch: Sequence[What]) -> bool:
        commits = [what for what in batch if type(what) is Commit and has_only_events(what)]
        if len(commits) != len(batch):
            return False
        try:
            return await self._lane.run(lambda connection: append(connection, commits))
        except Exception as error:
            if is_of_one_part(error):
                return False
            raise

    def _alone(self, batch: Sequence[What]) -> Callable[[Transaction], Awaitable[Errors]]:
        async def apply(tx: Transaction) -> Errors:
            return [await self._part(tx, what) for what in batch]

        return apply

    async def _part(self, tx: Transaction, what: What) -> BaseException | None:
        heard = tx.heard()
        await tx.connection.execute("SAVEPOINT part")
        try:
            failure = await _one(tx, what)
        except ErgonError as error:
            failure = error
        except Exception as error:
            if not is_of_one_part(error) and not isinstance(error, journal.Refused):
                raise
            await tx.connection.execute("ROLLBACK TO part")
            failure = translate(error, self._where)
            if isinstance(what, Commit):
                said = await journal.refusal(tx, what)
                if said is None or getattr(error, "sqlstate", _UNIQUE) == _UNIQUE:
                    failure = said
        else:
            if failure is None:
                await tx.connection.execute("RELEASE part")
                return None
        await tx.connection.execute("ROLLBACK TO part")
        await tx.connection.execute("RELEASE part")
        tx.return_to(heard)
        return failure


async def _together(tx: Transaction, batch: Sequence[What]) -> Errors | None:
    commits = [what for what in batch if type(what) is Commit]
    creates = [what for what in batch if type(what) is Create]
    sends = [what for what in batch if type(what) is Send]
    _check_order(commits)
    living = await intake.owners_alive(tx, [create.flow for create in creates])
    errors: dict[int, BaseException | None] = {}  # by the identity of what failed
    if commits or sends:
        standing = await journal.locked(tx, commits, [send.message.flow_id for send in sends])
        refused = await journal.fence(tx, commits, standing)
        errors.update((id(commits[place]), error) for place, error in refused.items())
        sound = [commit for place, commit in enumerate(commits) if place not in refused]
        if sound:
            await journal.apply(tx, sound)
    if creates:
        errors.update(await _create(tx, creates, living))
    if sends and not await intake.send(tx, [send.message for send in sends]):
        raise journal.Refused
    return [errors.get(id(what)) for what in batch] if errors else None


async def _create(
    tx: Transaction, creates: Sequence[Create], living: set[str]
) -> dict[int, BaseException | None]:
    flows: dict[str, Create] = {}
    for create in creates:
        create.found = None
        if create.flow.owner is None or create.flow.owner in living:
            flows.setdefault(create.flow.id, create)
    new = await intake.insert(tx, [create.flow for create in flows.values()])
    others = [
        create for create in creates if create is not flows.get(create.flow.id) or create.flow.id not in new
    ]
    found = await intake.find(tx, [create.flow.id for create in others]) if others else {}
    errors: dict[int, BaseException | None] = {}
    for create in others:
        create.found = found.get(create.flow.id)
        if create.found is None:
            errors[id(create)] = intake.not_created(create.flow)
    return errors


async def _one(tx: Transaction, what: What) -> BaseException | None:
    if type(what) is Create:
        living = await intake.owners_alive(tx, [what.flow])
        return (await _create(tx, [what], living)).get(id(what))
    if type(what) is Send:
        await intake.send_alone(tx, what.message)
        return None
    assert type(what) is Commit, "there are three kinds"
    refused = await journal.fence(tx, [what], await journal.locked(tx, [what]))
    if refused:
        return refused[0]
    await journal.apply(tx, [what])
    return None


def _check_order(commits: Sequence[Commit]) -> None:
    """Leases are compared before anything is written: so a flow that settles here must not have another commit."""
    last: dict[str, Commit] = {}
    for commit in commits:
        before = last.get(commit.flow_id)
        if before is not None and not (has_only_events(before) and has_only_events(commit)):
            raise journal.Refused
        last[commit.flow_id] = commit
