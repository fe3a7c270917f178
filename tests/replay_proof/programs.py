"""Random programs: trees of asyncio calls, as plain JSON so that another process can run the same one."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any, Final

Node = dict[str, Any]

LEAVES: Final = {
    "step": 30,
    "sleep": 6,
    "named_timer": 2,
    "signal": 7,
    "child": 5,
    "started_child": 2,
    "timed_child": 3,
    "values": 3,
    "patched": 3,
    "pause": 3,
    "put": 6,
    "get": 6,
    "set_event": 2,
    "wait_event": 3,
    "wait_condition": 3,
    "notify": 3,
    "callback": 2,
    "later": 2,
    "raise": 2,
    "walk_tasks": 1,
    "dag": 1,
    "cancel": 4,
    "join": 4,
}
"""Kinds without a body, and how often each is chosen."""

BRANCHES: Final = {
    "seq": 14,
    "gather": 9,
    "group": 8,
    "wait": 9,
    "as_completed": 8,
    "wait_for": 7,
    "timeout": 7,
    "shield": 4,
    "race": 5,
    "spawn": 8,
    "lock": 5,
    "semaphore": 4,
    "catch": 6,
    "finally": 4,
    "stubborn": 3,
    "generator": 3,
    "context": 2,
    "steps": 4,
    "outlasting": 3,
    "cleaning": 4,
    "undoing": 2,
    "limits": 3,
    "cancelled_twice": 3,
    "barrier": 2,
    "workers": 2,
}
"""Kinds with a body."""

KINDS: Final = frozenset(LEAVES) | frozenset(BRANCHES)

SEVERAL: Final = frozenset(
    {"seq", "gather", "group", "wait", "as_completed", "race", "generator"}
    | {"steps", "cleaning", "barrier", "workers"}
)
"""Branches whose body is several nodes; the others have one."""

STEPS: Final = ("alpha", "beta", "gamma")
CHANNELS: Final = ("left", "right")
SLOTS: Final = 4
DELAYS: Final = (1.0, 2.0, 2.0, 3.5, 5.0, 8.0)


class ProgramMaker:
    """Makes one program from a seed."""

    def __init__(self, seed: str) -> None:
        self._rng = random.Random(seed)
        self._left = self._rng.choice((20, 35, 45, 60, 80))
        self._next_id = 0

    def make(self) -> Node:
        """A program of 10 to about 90 nodes."""
        body = []
        while self._left > 0:
            # A deadlock among queues and locks ends here, so that the rest of the program runs too.
            limit = self._fill("timeout", body=[self._node(depth=0)])
            body.append({**limit, "delay": 60.0, "again": None})
        return {**self._fill("seq", body=body), "fails": self._rng.random() < 0.2}

    def _node(self, depth: int) -> Node:
        self._left -= 1
        weights = LEAVES if depth >= 5 or self._left <= 0 or self._rng.random() < 0.35 else BRANCHES
        kind = self._rng.choices(list(weights), list(weights.values()))[0]
        return self._fill(kind, depth=depth)

    def _fill(self, kind: str, *, depth: int = 0, body: list[Node] | None = None) -> Node:
        rng = self._rng
        self._next_id += 1
        node: Node = {"kind": kind, "id": self._next_id}
        if body is not None:
            node["body"] = body
        elif kind in SEVERAL:
            node["body"] = [self._node(depth + 1) for _ in range(rng.choice((2, 2, 3, 3, 4)))]
        elif kind in BRANCHES:
            node["body"] = [self._node(depth + 1)]
        details = getattr(self, f"_{kind}", None)
        if details is not None:
            node.update(details(rng, depth))
        return node

    # -- what is particular to each kind; most have nothing ----------------------------------------------

    def _step(self, rng: random.Random, depth: int) -> Node:
        # Few steps and few arguments: branches often ask for the very same thing.
        return {"name": rng.choice(STEPS), "arg": rng.randrange(3)}

    def _sleep(self, rng: random.Random, depth: int) -> Node:
        return {"delay": rng.choice(DELAYS)}

    _named_timer = _later = _sleep

    def _signal(self, rng: random.Random, depth: int) -> Node:
        return {"name": rng.choice(CHANNELS)}

    def _child(self, rng: random.Random, depth: int) -> Node:
        return {"arg": rng.randrange(3)}

    _started_child = _child

    def _patched(self, rng: random.Random, depth: int) -> Node:
        return {"name": f"patch-{rng.randrange(3)}"}

    def _put(self, rng: random.Random, depth: int) -> Node:
        return {"name": rng.choice(CHANNELS)}

    _get = _lock = _semaphore = _put

    def _set_event(self, rng: random.Random, depth: int) -> Node:
        return {"clear": rng.random() < 0.4}

    def _notify(self, rng: random.Random, depth: int) -> Node:
        return {"count": rng.choice((1, 1, 2))}

    def _cancel(self, rng: random.Random, depth: int) -> Node:
        return {"slot": rng.randrange(SLOTS)}

    _join = _spawn = _cancel

    def _gather(self, rng: random.Random, depth: int) -> Node:
        return {"collect": rng.random() < 0.5}

    def _wait(self, rng: random.Random, depth: int) -> Node:
        return {
            "return_when": rng.choice(("FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED")),
            "delay": rng.choice((None, None, *DELAYS)),
            "as_set": rng.random() < 0.5,
            "gathered": rng.random() < 0.2,
            "then": rng.choice(("cancel", "join", "leave")),
        }

    def _as_completed(self, rng: random.Random, depth: int) -> Node:
        return {
            "source": rng.choice(("list", "generator", "tasks", "early list", "early generator", "twice")),
            "delay": rng.choice((None, None, *DELAYS)),
        }

    def _wait_for(self, rng: random.Random, depth: int) -> Node:
        return {"delay": rng.choice((None, 0, *DELAYS))}

    def _timeout(self, rng: random.Random, depth: int) -> Node:
        return {"delay": rng.choice(DELAYS), "again": rng.choice((None, None, *DELAYS))}

    def _timed_child(self, rng: random.Random, depth: int) -> Node:
        return {"arg": rng.randrange(3), "delay": rng.choice(DELAYS), "again": rng.choice((None, *DELAYS))}

    def _steps(self, rng: random.Random, depth: int) -> Node:
        return {
            "name": rng.choice(STEPS),
            "count": rng.choice((1, 2, 5)),
            "collect": rng.random() < 0.5,
            "cancel": rng.random() < 0.4,
            "delay": rng.choice((None, *DELAYS)),
        }

    def _outlasting(self, rng: random.Random, depth: int) -> Node:
        return {"delay": rng.choice(DELAYS)}

    def _cleaning(self, rng: random.Random, depth: int) -> Node:
        return {
            "by": rng.choice(("step", "timer", "signal", "child")),
            "arg": rng.randrange(3),
            "delay": rng.choice(DELAYS),
            "name": rng.choice(CHANNELS),
        }

    def _undoing(self, rng: random.Random, depth: int) -> Node:
        return {"arg": rng.randrange(3)}

    def _limits(self, rng: random.Random, depth: int) -> Node:
        return {name: rng.choice(DELAYS) for name in ("delay", "again", "limit")}

    def _cancelled_twice(self, rng: random.Random, depth: int) -> Node:
        return {name: rng.choice(DELAYS) for name in ("delay", "again")}

    def _generator(self, rng: random.Random, depth: int) -> Node:
        return {"stop_after": rng.choice((1, 2, 9))}

    def _finally(self, rng: random.Random, depth: int) -> Node:
        return {"cleanup": self._node(depth + 2)}

    _stubborn = _finally

    def _catch(self, rng: random.Random, depth: int) -> Node:
        return {"instead": self._node(depth + 2)}


def make_program(seed: str) -> Node:
    """The program of a seed."""
    return ProgramMaker(seed).make()


class Changed:
    """A program as another attempt of its flow runs it: as it was, or mended in a few places."""

    def __init__(self, program: Node, seed: str, attempt: int) -> None:
        self._rng = random.Random(f"{seed} attempt {attempt}")
        self.program: Node = copy.deepcopy(program)
        self._next_id = 1000 * attempt

    def make(self) -> Node:
        """The program of this attempt."""
        if self._rng.random() < 0.7:
            for _ in range(self._rng.choice((1, 1, 2, 4))):
                wide = [node for node in walk(self.program) if len(node.get("body", ())) > 1]
                if not wide:  # all that could be taken away is
                    break
                self._change(self._rng.choice(wide))
        return self.program

    def _change(self, node: Node) -> None:
        """Add a step, take something away, or let a time be another one."""
        rng, body = self._rng, node["body"]
        place = rng.randrange(len(body))
        what = rng.choice(("add", "remove", "move", "time"))
        if what == "add":
            self._next_id += 1
            step = {"kind": "step", "id": self._next_id, "name": rng.choice(STEPS), "arg": rng.randrange(3)}
            body.insert(place, step)
        elif what == "remove" and len(body) > 1:
            del body[place]
        elif what == "move":
            body.append(body.pop(place))
        else:
            for timed in walk(body[place]):
                if timed["kind"] in ("sleep", "named_timer", "timeout"):
                    timed["delay"] = rng.choice(DELAYS)


def program_of_attempt(program: Node, seed: str, attempt: int) -> Node:
    """What the flow's code is when it is tried for the `attempt`-th time."""
    return program if attempt == 1 else Changed(program, seed, attempt).make()


def walk(node: Node) -> Iterator[Node]:
    """A program's nodes, outermost first."""
    yield node
    inner = [*node.get("body", ()), *(node[key] for key in ("cleanup", "instead") if key in node)]
    for child in inner:
        yield from walk(child)
