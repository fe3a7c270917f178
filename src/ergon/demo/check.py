"""Check the manifest against a program that is not ours: `sha256sum`, or hashlib in a process of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ergon.demo.files import Entry, Job, to_bytes, to_text

BATCH_BYTES: Final = 60_000
"""Names given to one command: far below the limit of any system."""

FALLBACK: Final = """
import hashlib, os, sys
for name in map(os.fsencode, sys.argv[1:]):
    try:
        with open(name, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        continue
    safe = name.replace(b"\\\\", b"\\\\\\\\").replace(b"\\n", b"\\\\n")
    os.write(1, (b"\\\\" if safe != name else b"") + digest.encode() + b"  " + safe + b"\\n")
"""


@dataclass
class Verdict:
    """How the manifest compares with the files as they are now."""

    program: str
    equal: int = 0
    different: list[str] = field(default_factory=list)
    """Must be empty: the same file, another digest."""
    missing: list[str] = field(default_factory=list)
    """Must be empty: a file that was there all the time and is not in the manifest."""
    changed: list[str] = field(default_factory=list)
    """Changed, came or went while the demo ran or since; nothing can be said about them."""
    unreadable: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    """Must be empty: a file as it was, of which the program said nothing."""

    @property
    def holds(self) -> bool:
        """True when every file of which something can be said was checked, and the manifest is right."""
        return not self.different and not self.missing and not self.unchecked


def regular_files(job: Job) -> Iterator[tuple[bytes, os.stat_result]]:
    """Every regular file below the root, found in our own way: the names relative to it."""
    root, home = to_bytes(job.root), os.stat(job.home)
    skip = {os.fsencode(name) for name in job.skip}
    waiting = [b""]
    while waiting:
        folder = waiting.pop()
        try:
            names = os.listdir(os.path.join(root, folder))
        except OSError:
            continue
        for name in names:
            path = os.path.join(folder, name)
            try:
                found = os.lstat(os.path.join(root, path))
            except OSError:
                continue
            if stat.S_ISREG(found.st_mode):
                yield path, found
            elif stat.S_ISDIR(found.st_mode) and name not in skip and not os.path.samestat(found, home):
                waiting.append(path)


def compare(
    job: Job, entries: Iterable[Entry], began_at: float, on_progress: Callable[[int], None]
) -> Verdict:
    """Hash every file again, elsewhere, and compare with the manifest's entries."""
    command, program = _program()
    now = dict(regular_files(job))
    digests = _digests(command, to_bytes(job.root), list(now), on_progress)
    verdict = Verdict(program)
    known = set()
    for entry in entries:
        path = to_bytes(entry.path)
        known.add(path)
        _compare_one(verdict, entry, now.get(path), digests.get(path))
    for path, found in now.items():
        if path not in known:
            new = max(found.st_ctime, found.st_mtime) >= began_at
            (verdict.changed if new else verdict.missing).append(to_text(path))
    return verdict


def _compare_one(verdict: Verdict, entry: Entry, found: os.stat_result | None, digest: str | None) -> None:
    if not entry.sha256:
        verdict.unreadable.append(f"{entry.path} ({entry.note})")
    elif digest == entry.sha256:
        verdict.equal += 1
    elif found is None or entry.note or (found.st_size, found.st_mtime_ns) != (entry.size, entry.mtime_ns):
        verdict.changed.append(entry.path)
    elif digest is None:
        verdict.unchecked.append(entry.path)
    else:
        verdict.different.append(entry.path)


def _program() -> tuple[list[str], str]:
    found = shutil.which("sha256sum")
    if found is not None:
        return [found, "--"], "sha256sum"
    return [
        sys.executable,
        "-I",
        "-c",
        FALLBACK,
    ], "hashlib in a process of its own (there is no sha256sum here)"


def _digests(
    command: list[str], root: bytes, paths: list[bytes], on_progress: Callable[[int], None]
) -> dict[bytes, str]:
    found: dict[bytes, str] = {}
    for batch in _batches(paths):
        # "./": no name is ever taken for an option, or for standard input.
        names = [b"./" + path for path in batch]
        done = subprocess.run([*command, *names], cwd=root, capture_output=True, check=False)  # noqa: S603
        for line in done.stdout.split(b"\n")[:-1]:
            digest, path = _parse(line)
            found[path.removeprefix(b"./")] = digest
        on_progress(len(batch))
    return found


def _batches(paths: list[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    length = 0
    for path in paths:
        if batch and (length + len(path) > BATCH_BYTES or len(batch) >= 500):
            yield batch
            batch, length = [], 0
        batch.append(path)
        length += len(path) + 8
    if batch:
        yield batch


def _parse(line: bytes) -> tuple[str, bytes]:
    """`digest  name`; when the line begins with a backslash, so does every escape in the name."""
    escaped = line.startswith(b"\\")
    digest, _, name = line.lstrip(b"\\").partition(b" ")
    name = name[1:]
    if escaped:
        parts = name.split(b"\\\\")
        name = b"\\".join(part.replace(b"\\n", b"\n").replace(b"\\r", b"\r") for part in parts)
    return digest.decode(), name


def check_by_hand(job: Job, manifest: Path) -> str:
    """The command that repeats the check."""
    root = shlex.quote(os.fsdecode(to_bytes(job.root)))
    return f"(cd {root} && sha256sum --check --quiet) < {shlex.quote(str(manifest))}"
