"""Index a directory tree: a flow for the tree, a child flow for each directory, a step for each file.

Everything here is ordinary asyncio. What Ergon adds: a step whose result is in the log never runs again, however
often the worker dies, and a flow that waits for a person needs no process to wait in.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ergon import flow, flow_id, invoke, step, wait_signal
from ergon.demo import files
from ergon.demo.files import Entry, Job, Listing, Totals
from ergon.demo.ledger import body

DIRECTORIES_AT_ONCE = 24
DAYS_TO_CONFIRM = 7


@dataclass
class Confirmation:
    """What a person answers when asked to confirm the manifest."""

    by: str
    publish: bool = True


@dataclass
class Report:
    """How the index ended."""

    totals: Totals
    published: bool
    confirmed_by: str


@step
def list_directories(job: Job) -> list[str]:
    """Every directory of the tree."""
    with body(job.home, "list_directories"):
        return files.list_directories(job)


@step
def list_files(job: Job, directory: str) -> Listing:
    """The files of one directory."""
    with body(job.home, "list_files", directory):
        return files.list_files(job, directory)


@step
def index_file(job: Job, path: str) -> Entry:
    """Hash and compress one file."""
    with body(job.home, "index_file", path):
        return files.index_file(job, path)


@step
def write_part(job: Job, directory: str, entries: list[Entry]) -> int:
    """Write one directory's part of the manifest."""
    with body(job.home, "write_part", directory):
        return files.write_part(job, directory, entries)


@step
def write_draft(job: Job, directories: list[str]) -> Totals:
    """Join the parts to a draft of the manifest."""
    with body(job.home, "write_draft"):
        return files.write_draft(job, directories)


@step
def publish(job: Job) -> None:
    """Make the draft the manifest."""
    with body(job.home, "publish"):
        files.publish(job)


@flow
async def index_directory(job: Job, directory: str) -> int:
    """Index the files of one directory, all at once; returns how many there are."""
    listing = await list_files(job, directory)
    entries = await asyncio.gather(*(index_file(job, path) for path in listing.files))
    return await write_part(job, directory, [*entries, *listing.problems])


@flow
async def index_tree(job: Job) -> Report:
    """Index every directory, ask a person, publish."""
    directories = await list_directories(job)
    room = asyncio.Semaphore(DIRECTORIES_AT_ONCE)

    async def one(directory: str) -> None:
        async with room:
            child = index_directory.bind(job, directory)
            await invoke(child, id=files.child_name(flow_id(), directory)).result()

    async with asyncio.TaskGroup() as group:
        for directory in directories:
            group.create_task(one(directory))
    totals = await write_draft(job, directories)
    try:
        async with asyncio.timeout(DAYS_TO_CONFIRM * 86_400):
            answer = await wait_signal("confirm", Confirmation)
    except TimeoutError:
        answer = Confirmation(by=f"nobody, within {DAYS_TO_CONFIRM} days", publish=False)
    if answer.publish:
        await publish(job)
    return Report(totals, published=answer.publish, confirmed_by=answer.by)
