"""Random sequences of operations do to a log what they do to a model of the contract: equal answers, equal state.

`ERGON_CONFORMANCE_SEQUENCES=10000` runs more of them, and `ERGON_CONFORMANCE_SEED` others; a failure tells the seed of
its sequence, and the shortest part of it that fails.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Final

import pytest

from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.oracle.acting import Comparison
from ergon.testing.conformance.oracle.compare import Difference
from ergon.testing.conformance.oracle.sequences import Op, make, shorten

SEQUENCES: Final = int(os.environ.get("ERGON_CONFORMANCE_SEQUENCES", "200"))
SEED: Final = os.environ.get("ERGON_CONFORMANCE_SEED", "1")
PARTS: Final = 20
_runs: Final = itertools.count(1)


async def run_one(logs: Sequence[ExecutionLog], seed: str) -> None:
    """Run the sequence of a seed; raises `Difference` with the shortest part that fails."""
    ops = make(seed, len(logs))
    difference = await _try(logs, ops)
    if difference is None:
        return

    async def fails(fewer: Sequence[Op]) -> bool:
        return await _try(logs, fewer) is not None

    shortest = await shorten(ops, fails)
    last = await _try(logs, shortest) or difference
    steps = "\n".join(f"  {number}. {op}" for number, op in enumerate(shortest))
    raise Difference(f"sequence {seed!r} fails, and so does this part of it:\n{steps}\n{last}")


async def _try(logs: Sequence[ExecutionLog], ops: Sequence[Op]) -> Difference | None:
    comparison = Comparison(logs, f"s{next(_runs)}.")
    try:
        await comparison.run(ops)
    except Difference as difference:
        return difference
    finally:
        await comparison.leave()
    return None


@pytest.mark.parametrize("part", range(PARTS))
async def test_random_sequences_do_what_the_model_of_the_contract_does(log: ExecutionLog, part: int) -> None:
    for number in range(part, SEQUENCES, PARTS):
        await run_one([log], f"{SEED}-{number}")
