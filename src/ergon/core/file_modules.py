"""Modules that are files: imported from where they are, under names that are the same in every process.

A class of such a module is written to the log by its module's name, and a process of a pool finds a step by it. So the
name may not change from run to run, and a pool's processes are told which file it stands for.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

_DIGITS: Final = 12
_files: Final[dict[str, str]] = {}


def names_of(paths: Iterable[Path]) -> dict[Path, str]:
    """A module name for each file (paths are absolute, and may have links), whatever their order.

    It is the file's own name, as for `import` in its directory. Where that cannot be, as it has dots, is the standard
    library's, or is that of several of these files, it is `hashed_name`.
    """
    by_stem: dict[str, set[Path]] = {}
    for path in paths:
        by_stem.setdefault(path.stem, set()).add(path)
    return {
        path: stem if len(namesakes) == 1 and _is_free(stem) else hashed_name(path, namesakes)
        for stem, namesakes in by_stem.items()
        for path in namesakes
    }


def hashed_name(path: Path, namesakes: Iterable[Path]) -> str:
    """A name with a hash of where the file stands among its namesakes.

    So it stays when all of them move, as with a new release.
    """
    try:
        place = path.relative_to(os.path.commonpath([each.parent for each in namesakes]))
    except ValueError:  # on several drives
        place = path
    digits = hashlib.sha256(os.fsencode(place.as_posix())).hexdigest()[:_DIGITS]
    return re.sub(r"\W", "_", path.stem) + f"_{digits}"


def _is_free(stem: str) -> bool:
    return "." not in stem and stem not in sys.stdlib_module_names


def import_file(name: str, file: Path) -> ModuleType | None:
    """Import a file under this name; None where it is no Python file. Raises what it raises."""
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        return None
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)  # as `import` does
        raise
    _files[name] = str(file)
    return module


def imported_files() -> dict[str, str]:
    """Each name so far and its file, for `find_in` in another process."""
    return dict(_files)


def find_in(files: Mapping[str, str]) -> None:
    """Let `import` find these modules in these files, before it looks anywhere else."""
    _files.update(files)
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


def namesakes_of(name: str) -> list[ModuleType]:
    """The loaded files that may have had this name when they were given beside others, or alone."""
    stem = _stem_of(name)
    names = [each for each in _files if _stem_of(each) == stem and each != name]
    return [sys.modules[each] for each in names if each in sys.modules]


def _stem_of(name: str) -> str:
    return re.sub(rf"_[0-9a-f]{{{_DIGITS}}}$", "", name)


class _Finder(PathFinder):
    """Finds what another process imported by `import_file`."""

    @classmethod
    def find_spec(
        cls,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG003
        target: ModuleType | None = None,  # noqa: ARG003
    ) -> ModuleSpec | None:
        file = _files.get(fullname)
        return spec_from_file_location(fullname, file) if file is not None else None
