"""Random sequences through two handles on one store, as two processes would do them one after the other."""

from __future__ import annotations

import pytest

from ergon.testing.conformance.differential import PARTS, SEED, SEQUENCES, run_one
from ergon.testing.conformance.store import Store


@pytest.mark.parametrize("part", range(PARTS))
async def test_random_sequences_on_two_handles_do_what_the_model_does(store: Store, part: int) -> None:
    async with store.open() as one, store.open() as other:
        for number in range(part, SEQUENCES // 4, PARTS):
            await run_one([one, other], f"{SEED}-two-{number}")
