"""Random sequences of operations: data, so that one that fails can be made shorter.

An operation names flows and workers of a small world and says in words what else depends on what happened before, such
as `own` for the lease that a flow has then. So each sequence means something, also with any of its operations left out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, Final, NamedTuple

FLOWS: Final = tuple(f"f{n}" for n in range(5))
WORKERS: Final = ("w0", "w1", "w2")
NAMES: Final = ("a", "b")
QUEUES: Final = ("q", "r")
VERSIONS: Final = (None, None, "1.0", "2.0", "blue")
WANTED: Final = (None, None, None, ("*",), (), ("1.0",), (">=1.5",), ("blue", "<2"))
TAGS: Final = ((), (), ("x",), ("x", "y"))
OPS: Final = ("0:1", "0:2", "0:2/child:1")
LENGTH: Final = 30


class Op(NamedTuple):
    """One operation."""

    kind: str
    args: dict[str, Any]
    handle: int = 0
    """Which of the log's handles does it."""

    def __str__(self) -> str:
        words = ", ".join(
            f"{name}={value!r}" for name, value in self.args.items() if value not in (None, False, ())
        )
        return f"{self.kind}({words})" + (f" on handle {self.handle}" if self.handle else "")


def make(seed: str, handles: int) -> list[Op]:
    """The sequence of this seed."""
    rng = Random(seed)
    ops = [Op("register", {"worker": worker}) for worker in WORKERS[:2]]
    ops += [Op("create", {**_create(rng), "id": id}) for id in FLOWS[:3]]
    ops.append(Op("claim", {**_ANYTHING, "worker": WORKERS[0]}))
    kinds, weights = zip(*((kind, weight) for kind, (weight, _) in _KINDS.items()), strict=True)
    chosen = rng.choices(kinds, weights, k=LENGTH)
    return ops + [Op(kind, _KINDS[kind][1](rng), rng.randrange(handles)) for kind in chosen]


def _create(rng: Random) -> dict[str, Any]:
    parent = rng.choice(FLOWS[:2]) if rng.random() < 0.3 else None
    return {
        "id": rng.choice(FLOWS),
        "parent": parent,
        "owner": rng.choice(WORKERS) if rng.random() < 0.1 else None,
        **_kind(rng),
        **(_child(rng) if parent else {}),
    }


def _kind(rng: Random) -> dict[str, Any]:
    return {
        "name": rng.choice(NAMES),
        "input": rng.choice(("{}", "{}", '{"n":1}')),
        "queue": rng.choice(QUEUES),
        "version": rng.choice(VERSIONS),
        "priority": rng.choice((0, 0, 0, 5, -5)),
        "tags": rng.choice(TAGS),
        "when": rng.choice((None, None, None, "past", "later")),
        "timeout": rng.random() < 0.2,
    }


def _child(rng: Random) -> dict[str, Any]:
    return {"op": rng.choice(OPS), "close": rng.random() < 0.7}


def _children(rng: Random) -> tuple[dict[str, Any], ...]:
    """Mostly the same child for the same id, as a flow asks that starts again."""
    made = []
    for id in rng.sample(FLOWS, rng.choice((0, 0, 0, 1, 2))):
        usual = Random(id)
        made.append({"id": id, **_kind(usual), **_child(usual), "name": "a"})
        if rng.random() < 0.2:
            made[-1] |= {"op": rng.choice(OPS), "input": '{"n":2}'}
    return tuple(made)


def _cancels(rng: Random) -> tuple[dict[str, Any], ...]:
    attempt = rng.choice((1, 1, 2))  # the sender's, so the same for all of one commit
    return tuple(
        {"id": rng.choice((*FLOWS, None)), "op": rng.choice((None, *OPS)), "attempt": attempt}
        for _ in range(rng.choice((0, 0, 0, 1, 2)))
    )


def _send(rng: Random) -> dict[str, Any]:
    return {
        "id": rng.choice(FLOWS),
        "name": rng.choice(("go", "stop")),
        "payload": str(rng.randrange(100)),
        "key": rng.choice((None, None, "k", "l")),
    }


def _cancel(rng: Random) -> dict[str, Any]:
    return {
        "id": rng.choice(FLOWS),
        "name": rng.choice(("", "", "again", "deadline")),
        "reason": rng.choice((None, '""', '"enough"')),
        "key": rng.choice(("cancel", "cancel", None)),
    }


def _commit(rng: Random) -> dict[str, Any]:
    settles = rng.random() < 0.35
    return {
        "id": rng.choice(FLOWS),
        "running": rng.choice((None, 0, 1, 2, 3, 4)),
        "lease": rng.choices(("own", "old", "stranger"), (12, 1, 1))[0],
        "events": rng.choice((0, 1, 1, 1, 2, 3)),
        "backs_off": rng.random() < 0.15,
        "clashes": rng.random() < 0.05,
        "consume": rng.random() < 0.5,
        "consume_read": rng.random() < 0.04,
        "give_back": rng.random() < 0.15,
        "children": _children(rng),
        "cancels": _cancels(rng),
        "status": rng.choice(
            ("completed", "failed", "cancelled", "suspended", "suspended", "pending", "parked")
        )
        if settles
        else None,
        "seen": rng.random() < 0.6,
        "later": rng.random() < 0.4,
    }


_ANYTHING: Final[dict[str, Any]] = {
    "names": NAMES,
    "queues": QUEUES,
    "versions": None,
    "tags": ("x", "y"),
    "limit": 10,
    "id": None,
}


def _claim(rng: Random) -> dict[str, Any]:
    if rng.random() < 0.5:
        return {**_ANYTHING, "worker": rng.choice(WORKERS), "limit": rng.choice((1, 2, 10))}
    return {
        "worker": rng.choice(WORKERS[:2]),
        "names": rng.choice((NAMES, NAMES, NAMES[:1], ())),
        "queues": rng.choice((QUEUES, QUEUES, QUEUES[:1])),
        "versions": rng.choice(WANTED),
        "tags": rng.choice((("x", "y"), ("x", "y"), ("x",), ())),
        "limit": rng.choice((0, 1, 2, 10)),
        "id": rng.choice(FLOWS) if rng.random() < 0.4 else None,
    }


def _move(rng: Random) -> dict[str, Any]:
    target = rng.choice(("paused", "pending", "pending", "cancelled"))
    only = rng.choice((None, None, ("failed",), ("paused", "parked"))) if target == "pending" else None
    output = rng.choice((None, '"killed"')) if target == "cancelled" else None
    said = {"reason": rng.choice(("", "legal")), "output": output}
    return {"id": rng.choice(FLOWS), "target": target, "only": only, **said}


def _look(rng: Random) -> dict[str, Any]:
    return {
        "worker": rng.choice(WORKERS),
        "names": rng.choice((NAMES, NAMES[:1])),
        "statuses": rng.choice(
            ((), ("pending",), ("running", "completed"), ("suspended", "paused", "parked"))
        ),
        "queue": rng.choice((None, "q")),
        "version": rng.choice((None, "1.0")),
        "tags": rng.choice(TAGS),
        "parent": rng.choice((None, None, FLOWS[0])),
        "limit": rng.choice((1, 2, 3)),
        "key": rng.choice(("k", "l")),
    }


_KINDS: Final[dict[str, tuple[int, Callable[[Random], dict[str, Any]]]]] = {
    "create": (14, _create),
    "send": (10, _send),
    "cancel": (5, _cancel),
    "commit": (26, _commit),
    "batch": (5, lambda rng: {"commits": tuple(_commit(rng) for _ in range(rng.choice((2, 3))))}),
    "commit_again": (3, lambda _: {}),
    "claim": (18, _claim),
    "move": (9, _move),
    "reschedule": (3, lambda rng: {"id": rng.choice(FLOWS), "later": rng.random() < 0.5}),
    "retry_now": (4, lambda rng: {"id": rng.choice(FLOWS)}),
    "delete": (4, lambda rng: {"id": rng.choice(FLOWS)}),
    "register": (2, lambda rng: {"worker": rng.choice(WORKERS)}),
    "renew": (2, lambda rng: {"worker": rng.choice(WORKERS), "doing": rng.choice(FLOWS)}),
    "drain": (1, lambda rng: {"worker": rng.choice(WORKERS)}),
    "retire": (1, lambda rng: {"worker": rng.choice(WORKERS)}),
    "die": (1, lambda rng: {"worker": rng.choice(WORKERS)}),
    "disown": (2, lambda rng: {"worker": rng.choice(WORKERS), "knows": rng.choice((FLOWS[:3], ()))}),
    "look": (8, _look),
}


async def shorten(ops: Sequence[Op], fails: Callable[[Sequence[Op]], Awaitable[bool]]) -> list[Op]:
    """Leave out whatever the failure does not need: halves first, single operations last."""
    kept = list(ops)
    size = len(kept) // 2
    while size:
        place = 0
        while place < len(kept):
            fewer = kept[:place] + kept[place + size :]
            if await fails(fewer):
                kept = fewer
            else:
                place += size
        size //= 2
    return kept
