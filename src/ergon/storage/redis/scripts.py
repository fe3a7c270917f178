"""The Lua scripts, each in a `.lua` file beside the Python that calls it.

A script is the prelude, but for two that do without, the files that its first line names after `-- needs:` and theirs
before them, and then itself. Each is sent once to a server (`SCRIPT LOAD`) and called by its digest from then on.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

_FOLDER: Final = Path(__file__).parent
_NEEDS: Final = "-- needs:"
_PARTS: Final = frozenset({"prelude", "flows", "inbox", "ended", "children"})
"""Files that are no script by themselves."""
_ALONE: Final = frozenset({"open", "append"})
"""Scripts that begin without the prelude."""


class Script(NamedTuple):
    """A script and its digest, by which servers know it."""

    text: str
    sha: str


@cache
def scripts() -> dict[str, Script]:
    """Every script by name."""
    names = sorted(file.stem for file in _FOLDER.glob("*.lua") if file.stem not in _PARTS)
    return {name: _assemble(name) for name in names}


def _assemble(name: str) -> Script:
    text = "\n".join(_read(part) for part in _parts(name))
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _parts(name: str) -> list[str]:
    if name in _ALONE:
        return [name]
    found: list[str] = ["prelude"]

    def add(part: str) -> None:
        first = _read(part).partition("\n")[0]
        if first.startswith(_NEEDS):
            for needed in first.removeprefix(_NEEDS).split():
                add(needed)
        if part not in found:
            found.append(part)

    add(name)
    return found


@cache
def _read(name: str) -> str:
    return (_FOLDER / f"{name}.lua").read_text(encoding="utf-8")
