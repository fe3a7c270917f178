"""From `module:flow` or `file.py:flow` to code. Only `run` and `worker` import what users wrote."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ergon.cli.problems import BadInput
from ergon.core.failure import users_line
from ergon.core.file_modules import hashed_name, import_file, names_of
from ergon.core.names import near
from ergon.flows.flow import BoundFlow, Flow
from ergon.flows.steps import Step
from ergon.flows.types import flows_of


@dataclass(frozen=True, slots=True)
class Target:
    """What a TARGET names: a module with flows, and perhaps one thing in it."""

    text: str
    flows: tuple[Flow[..., Any], ...]
    """Every flow found in the module, in the order of their names."""
    wanted: str | None
    """What stands after the colon."""
    steps: frozenset[str] = frozenset()
    """The module's names for steps, which many take for flows."""
    plain: frozenset[str] = frozenset()
    """The module's own functions and classes that are neither."""

    def one(self) -> Flow[..., Any]:
        """The flow it names, or the only one there is. Raises `BadInput`."""
        names = [flow.name for flow in self.flows]
        if self.wanted is None:
            if len(self.flows) == 1:
                return self.flows[0]
            raise BadInput(
                f"{self.text} has {len(names)} flows; say which: {self.text}:{names[0]} ({', '.join(names)})"
            )
        found = [
            flow for flow in self.flows if self.wanted in (flow.name, flow.function.__name__, _owner_of(flow))
        ]
        exact = [flow for flow in found if flow.name == self.wanted] or found
        if len(exact) == 1:
            return exact[0]
        if exact:
            raise BadInput(_several(self.wanted, exact))
        module = self.text.rpartition(":")[0]
        if self.wanted in self.steps:
            raise BadInput(
                f"{self.wanted!r} in {module} is a step, which runs in a flow. Name a flow: {', '.join(names)}"
            )
        if self.wanted in self.plain:
            raise BadInput(
                f"{self.wanted!r} in {module} is no flow: it is not decorated with @flow. Decorate it, or name a flow: "
                f"{', '.join(names)}"
            )
        raise BadInput(
            f"there is no flow {self.wanted!r} in {module}{near(self.wanted, names, otherwise='.')} "
            f"Found there: {', '.join(names)}"
        )


def load(text: str) -> Target:
    """Import what the target names and find its flows. Raises `BadInput`."""
    return load_all([text])[0]


def load_all(texts: Sequence[str]) -> list[Target]:
    """The same for several; files of one name are told apart whichever comes first."""
    parts = [_split(text) for text in texts]
    names = _names(Path(place) for place, _ in parts if _is_file(place))
    return [_load(text, *part, names) for text, part in zip(texts, parts, strict=True)]


def _split(text: str) -> tuple[str, str]:
    """The module or file, and what stands after the colon."""
    place, colon, wanted = text.rpartition(":")
    if not colon or not wanted or not wanted.replace(".", "").isidentifier():
        return text, ""
    return place, wanted


def _load(text: str, place: str, wanted: str, names: Mapping[Path, str]) -> Target:
    module = _load_file(Path(place), names) if _is_file(place) else _load_module(place)
    flows = flows_in(module)
    if not flows:
        raise BadInput(f"{place} has no function decorated with @flow and no @flow_type class")
    steps = frozenset(name for name, thing in vars(module).items() if isinstance(thing, Step))
    plain = frozenset(
        name
        for name, thing in vars(module).items()
        if inspect.isroutine(thing) or (isinstance(thing, type) and not flows_of(thing))
    )
    return Target(text, flows, wanted or None, steps, plain)


def flows_in(module: ModuleType) -> tuple[Flow[..., Any], ...]:
    """The flows among a module's names, each once, by name."""
    found: dict[int, Flow[..., Any]] = {}
    for thing in vars(module).values():
        if isinstance(thing, Flow):
            found[id(thing)] = thing
        elif isinstance(thing, BoundFlow):
            found[id(thing.flow)] = thing.flow
        elif isinstance(thing, type):
            found.update((id(flow), flow) for flow in flows_of(thing))
    return tuple(sorted(found.values(), key=lambda flow: flow.name))


def _several(wanted: str, flows: Sequence[Flow[..., Any]]) -> str:
    """What to say where a name is that of several flows."""
    if len({flow.name for flow in flows}) == len(flows):
        return f"{wanted!r} can be {' or '.join(flow.name for flow in flows)}; say which"
    places = " and ".join(
        f"{flow.function.__qualname__} (line {flow.function.__code__.co_firstlineno})" for flow in flows
    )
    return (
        f"{wanted!r} is the name of several flows, {places}, and a log knows a flow by its name; give all but one "
        "another: @flow(name=...)"
    )


def _owner_of(flow: Flow[..., Any]) -> str:
    return flow.owner.__name__ if flow.owner is not None else ""


def _is_file(place: str) -> bool:
    return place.endswith(".py") or os.sep in place or (os.altsep is not None and os.altsep in place)


def _names(paths: Iterable[Path]) -> dict[Path, str]:
    """Each file, without links, and its module's name. Raises `BadInput`."""
    named = {_file(path): Path(os.path.abspath(path)) for path in sorted(paths)}  # noqa: PTH100 - keep the links
    names = names_of(named.values())
    return {file: names[path] for file, path in named.items()}


def _file(path: Path) -> Path:
    if not path.is_file():
        raise BadInput(f"there is no file {path}; a target is file.py:flow or module:flow")
    return path.resolve()


def _load_file(path: Path, names: Mapping[Path, str]) -> ModuleType:
    """Import a file, if it can be under its own name, as `import` from its directory would."""
    file = _file(path)
    name = names[file]
    folder = str(file.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if not _may_be(name, file):
        name = hashed_name(path, [path])
    if name in sys.modules:
        return sys.modules[name]
    try:
        module = import_file(name, file)
    except (Exception, SystemExit) as error:
        raise _import_failed(str(path), error) from error
    if module is None:
        raise BadInput(f"{path} is no Python file")
    return module


def _may_be(name: str, file: Path) -> bool:
    """Whether no other file has been imported under this name."""
    loaded = sys.modules.get(name)
    return loaded is None or getattr(loaded, "__file__", None) == str(file)


def _load_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise BadInput(f"{name!r} is neither a module nor a file; a target is module:flow or file.py:flow")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _import_failed(name, error) from error
        file = Path(*name.split(".")).with_suffix(".py")
        hint = f"; did you mean the file {file}?" if file.is_file() else "; a file is named with its .py"
        raise BadInput(f"there is no module {name} here or among the installed ones{hint}") from None
    except (Exception, SystemExit) as error:
        raise _import_failed(name, error) from error


def _import_failed(what: str, error: Exception | SystemExit) -> BadInput:
    if isinstance(error, RuntimeError) and "asyncio.run() cannot be called" in str(error):
        return _is_program(what, error)
    said = error.msg if isinstance(error, SyntaxError) and error.filename else error
    return BadInput(
        f"importing {what} raised {type(error).__name__}: {said}{_place_of(error)}; ERGON_DEBUG=1 shows the traceback"
    )


def _place_of(error: Exception | SystemExit) -> str:
    """Where it was raised, or what Python could not read: not where in its own machinery of imports it says so."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({Path(error.filename).name}:{error.lineno})"
    line = users_line(error)
    return f" ({line})" if line else ""


def _is_program(what: str, error: RuntimeError) -> BadInput:
    """What is imported calls `asyncio.run` itself. Flows are imported on a running loop, so it did not start."""
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if Path(frame.f_code.co_filename).parent != Path(asyncio.__file__).parent:
            place = f" ({Path(frame.f_code.co_filename).name}:{line})"
            continue
        for value in frame.f_locals.values():
            if inspect.iscoroutine(value):
                value.close()  # else Python warns that it was never awaited
    return BadInput(
        f"importing {what} starts its program: it calls asyncio.run(){place}. Put that call under "
        '`if __name__ == "__main__":`, so that flows in it can be imported'
    )
