"""Flows whose whole work is counting, for tests that disturb it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ergon import flow, step


@step
async def add(total: int) -> int:
    return total + 1


@flow
async def sum_up(steps: int) -> int:
    total = 0
    for _ in range(steps):
        total = await add(total)
    return total


@step
async def count(file: str, number: int) -> int:
    with Path(file).open("a") as ran:
        ran.write(f"{number}\n")
    await asyncio.sleep(0.005)
    return number


@flow
async def counted(file: str, steps: int) -> int:
    done = [await count(file, number) for number in range(steps)]
    return len(done)
