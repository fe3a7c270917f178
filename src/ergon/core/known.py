"""Classes by name, found only among what this process has already imported."""

from __future__ import annotations

import sys
from typing import Any

from ergon.core.file_modules import namesakes_of


def class_address(kind: type) -> tuple[str, str]:
    """The module and qualified name under which `find_class` finds a class, also after a restart.

    A script run as `python -m app` has its classes in `__main__`; they are named `app`, as an importer would.
    """
    module = str(getattr(kind, "__module__", "") or "builtins")
    if module == "__mp_main__":  # what multiprocessing calls the script in its children
        module = "__main__"
    if module == "__main__":
        module = _main_name() or module
    return module, str(getattr(kind, "__qualname__", "object"))


def find_class(module: str, qualname: str) -> type | None:
    """Return the class of that name, or None. Imports nothing and runs no code: it only looks into dictionaries."""
    places = [sys.modules.get(module)]
    if module != "__main__" and module == _main_name():
        places.insert(0, sys.modules.get("__main__"))
    for place in places:
        if (found := _class_in(place, qualname)) is not None:
            return found
    # A file that was given alone and is now beside another of its name, or the other way round.
    maybe = {kind for place in namesakes_of(module) if (kind := _class_in(place, qualname)) is not None}
    return maybe.pop() if len(maybe) == 1 else None


def _class_in(place: Any, qualname: str) -> type | None:
    found: Any = place
    for part in qualname.split("."):
        found = _member(found, part)
    return found if isinstance(found, type) else None


def _member(holder: Any, name: str) -> Any:
    try:
        return vars(holder).get(name)
    except TypeError:  # a function, None, or anything without a dictionary
        return None


def _main_name() -> str | None:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return getattr(spec, "name", None)
