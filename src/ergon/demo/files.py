"""What the steps do to files. Plain functions that know nothing of Ergon.

Each may be cut off anywhere and run again: it reads only, or it writes a new file and renames it into place.
File names are bytes and may be anything, so they travel as text in which `%XX` stands for what is no plain text.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

CHUNK_BYTES: Final = 1 << 20
ZLIB_LEVEL: Final = 6


@dataclass
class Job:
    """What to index, and where the demo keeps its files."""

    root: str
    """As `to_text` writes it."""
    home: str
    skip: list[str] = field(default_factory=list)
    """Directory names not to enter."""


@dataclass
class Entry:
    """One file as it was found. `sha256` is empty where it could not be read; `note` says why."""

    path: str
    size: int = 0
    sha256: str = ""
    compressed: int = 0
    mtime_ns: int = 0
    note: str = ""


@dataclass
class Listing:
    """The files of a directory; `problems` are those known not to be readable."""

    files: list[str]
    problems: list[Entry] = field(default_factory=list)


@dataclass
class Totals:
    """The manifest in numbers."""

    directories: int = 0
    files: int = 0
    bytes: int = 0
    compressed: int = 0
    unreadable: int = 0


# -- names -------------------------------------------------------------------------------------------------------


def to_text(raw: bytes) -> str:
    """A file name as printable text: `%XX` for what does not print, is not UTF-8, or is `%` itself."""
    text = raw.decode("utf-8", "surrogateescape")
    if text.isascii() and text.isprintable() and "%" not in text:
        return text
    return "".join(_plain(char) for char in text)


def _plain(char: str) -> str:
    if char != "%" and char.isprintable():
        return char
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))


def to_bytes(text: str) -> bytes:
    """The file name that `to_text` wrote."""
    return re.sub(rb"%([0-9A-F]{2})", lambda found: bytes([int(found[1], 16)]), text.encode())


def child_name(parent: str, directory: str) -> str:
    """A readable flow id for a directory; a very long one is cut and made unique by a digest."""
    name = f"{parent}/{directory}/" if directory else f"{parent}/./"
    return name if len(name) <= 400 else f"{name[:380]}…{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def place_of(job: Job, path: str) -> bytes:
    """Where a path of the manifest is on the disk."""
    return os.path.join(to_bytes(job.root), to_bytes(path)) if path else to_bytes(job.root)


# -- what the steps do -------------------------------------------------------------------------------------------


def list_directories(job: Job) -> list[str]:
    """Every directory below the root, the root first as an empty text. Links are not followed."""
    root = to_bytes(job.root)
    home = os.path.realpath(os.fsencode(job.home))
    skip = {os.fsencode(name) for name in job.skip}
    found = []
    for place, below, _ in os.walk(root):
        below[:] = sorted(
            name
            for name in below
            if name not in skip
            and not os.path.islink(os.path.join(place, name))
            and os.path.realpath(os.path.join(place, name)) != home
        )
        found.append(to_text(os.path.relpath(place, root)) if place != root else "")
    return found


def list_files(job: Job, directory: str) -> Listing:
    """The regular files of one directory. Links, sockets, pipes and devices are left out."""
    names, place = [], place_of(job, directory)
    try:
        with os.scandir(place) as entries:
            names = sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))
    except OSError as error:
        return Listing([], [Entry(directory or ".", note=f"directory not readable: {error.strerror}")])
    prefix = f"{directory}/" if directory else ""
    return Listing([prefix + to_text(name) for name in names])


def index_file(job: Job, path: str) -> Entry:
    """Hash and compress one file in small pieces. A file that cannot be read is an entry too, not an error."""
    digest, compressor, compressed = hashlib.sha256(), zlib.compressobj(ZLIB_LEVEL), 0
    try:
        with open(place_of(job, path), "rb", opener=_without_waiting) as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                return Entry(path, note="no regular file any more")
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                compressed += len(compressor.compress(chunk))
            after = os.fstat(file.fileno())
    except OSError as error:
        return Entry(path, note=f"not readable: {error.strerror}")
    compressed += len(compressor.flush())
    changed = (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)
    note = "changed while it was read" if changed else ""
    return Entry(path, after.st_size, digest.hexdigest(), compressed, after.st_mtime_ns, note)


def _without_waiting(path: str, flags: int) -> int:
    """Open so that a pipe put in the file's place cannot make us wait, and a link is not followed."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))


def write_part(job: Job, directory: str, entries: list[Entry]) -> int:
    """Keep one directory's entries for the draft."""
    lines = [json.dumps(asdict(entry)) for entry in entries]
    _write(_part(job, directory), "".join(f"{line}\n" for line in lines).encode())
    return len(entries)


def write_draft(job: Job, directories: list[str]) -> Totals:
    """Join the parts: `index.jsonl` with everything, `manifest.draft` as `sha256sum` writes it."""
    totals, lines, digests = Totals(directories=len(directories)), [], []
    for directory in directories:
        for line in _part(job, directory).read_text(encoding="utf-8").splitlines():
            entry = Entry(**json.loads(line))
            lines.append(f"{line}\n")
            if not entry.sha256:
                totals.unreadable += 1
                continue
            totals.files += 1
            totals.bytes += entry.size
            totals.compressed += entry.compressed
            digests.append(checksum_line(entry.sha256, to_bytes(entry.path)))
    home = Path(job.home)
    _write(home / "index.jsonl", "".join(lines).encode())
    _write(home / "manifest.draft", b"".join(digests))
    return totals


def publish(job: Job) -> None:
    """Make the draft the manifest. The second time there is nothing left to do."""
    home = Path(job.home)
    if (home / "manifest.draft").exists():
        (home / "manifest.draft").replace(home / "manifest.sha256")


def checksum_line(digest: str, name: bytes) -> bytes:
    """A line of a manifest as `sha256sum --check` reads it: one with an odd name begins with a backslash."""
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
    return (b"\\" if escaped != name else b"") + digest.encode() + b"  " + escaped + b"\n"


def entries_of(home: Path) -> Iterator[Entry]:
    """What the draft was made of."""
    with (home / "index.jsonl").open(encoding="utf-8") as file:
        for line in file:
            yield Entry(**json.loads(line))


def _part(job: Job, directory: str) -> Path:
    return Path(job.home) / "parts" / f"{hashlib.sha256(directory.encode()).hexdigest()[:20]}.jsonl"


def _write(path: Path, data: bytes) -> None:
    """Write whole or not at all; two at once do not disturb each other."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.write_bytes(data)
    new.replace(path)
