"""Errors to JSON and back, so that `except InsufficientFunds as e: e.balance` works the same live and on replay.

What is read back may have been written by anyone who can write to the log. So an error is rebuilt only from classes
already imported, its own `__new__` and `__init__` are not run, and its attributes go straight into its dictionary.
Anything else becomes `StepFailed`. How single values travel is in `core/tagged.py`.
"""

from __future__ import annotations

import os
import traceback
from pathlib import PurePath
from types import FrameType
from typing import Any, Final

import msgspec

from ergon.core.known import class_address, find_class
from ergon.core.retry import own_answer
from ergon.core.tagged import Budget, cut, declared_types, instance_values, set_values, unpack
from ergon.errors import StepFailed

MESSAGE_CHARS_MAX: Final = 8_000
CHAIN_MAX: Final = 8
"""Causes of causes kept."""
GROUP_MAX: Final = 100
"""Members of an exception group kept."""
ERRORS_MAX: Final = 200
"""Errors in one record, all chains and groups together."""
FRAMES_MAX: Final = 20
_LIBRARY: Final = f"{PurePath(traceback.__file__).parent}{os.sep}"
_STAND_INS: Final = f"{PurePath(__file__).parent.parent / 'replay'}{os.sep}"
_KNOWN_FRAMES: Final = "__ergon_frames__"
"""Where an error that was read back keeps where it was raised; names like this one are not recorded themselves."""
_NO_MESSAGE: Final = "(no message:"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def describe(error: BaseException) -> str:
    """Write an error as JSON text: class, message, arguments, attributes, traceback lines, causes, group members.

    Values that cannot travel are left out; long texts are cut with a note. Never raises for an `Exception`, whatever
    its methods do. KeyboardInterrupt, CancelledError and the like are not failures and must not come here.
    """
    assert isinstance(error, Exception), f"{type(error).__name__} is not a failure to record"
    try:
        record = _Describer().record(error)
    except Exception:  # noqa: BLE001  # a class that overrides what exceptions are made of, such as `args`
        module, qualname = class_address(type(error))
        record = {"module": cut(module, 500), "type": cut(qualname, 500), "message": message_of(error)}
    return _encode(record).decode()


def awaitable(error: BaseException) -> BaseException:
    """The error as an `await` can raise it: no future carries `StopIteration`; a coroutine turns it into the same."""
    if not isinstance(error, StopIteration):
        return error
    instead = RuntimeError("a plain function raised StopIteration, such as by next(...) with nothing left")
    instead.__cause__ = error
    return instead


class _Describer:
    """Keeps count over one record: errors already in it (chains may be cycles) and room left for values."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._budget = Budget()

    def record(self, error: BaseException, depth: int = 0) -> dict[str, Any]:
        self._seen.add(id(error))
        module, qualname = class_address(type(error))
        values, notes = instance_values(error)
        record: dict[str, Any] = {
            "module": cut(module, 500),
            "type": cut(qualname, 500),
            "message": message_of(error),
            "args": [self._budget.pack(arg) for arg in _args_of(error)],
        }
        if attrs := self._budget.pack_all(values):
            record["attrs"] = attrs
        if notes:
            record["notes"] = [cut(note, 1_000) for note in notes[:20]]
        if (retryable := own_answer(error)) is not None:
            record["retryable"] = retryable
        record.update(_place_of(error))
        self._add_related(record, error, depth)
        return record

    def _add_related(self, record: dict[str, Any], error: BaseException, depth: int) -> None:
        cause, context = error.__cause__, error.__context__
        if cause is not None and self._has_room(cause, depth):
            record["cause"] = self.record(cause, depth + 1)
        elif context is not None and not error.__suppress_context__ and self._has_room(context, depth):
            record["context"] = self.record(context, depth + 1)
        if isinstance(error, BaseExceptionGroup):
            members = [member for member in error.exceptions[:GROUP_MAX] if self._has_room(member, depth)]
            record["group"] = [self.record(member, depth + 1) for member in members]
            if dropped := len(error.exceptions) - len(members):
                record["group_dropped"] = dropped

    def _has_room(self, error: BaseException, depth: int) -> bool:
        return (
            isinstance(error, Exception)
            and id(error) not in self._seen
            and depth < CHAIN_MAX
            and len(self._seen) < ERRORS_MAX
        )


def message_of(error: BaseException) -> str:
    """`str(error)`, or a note when that raises."""
    try:
        return cut(str(error), MESSAGE_CHARS_MAX)
    except Exception as broken:  # noqa: BLE001  # the user's __str__
        return f"{_NO_MESSAGE} its __str__ raised {type(broken).__name__})"


def _args_of(error: BaseException) -> tuple[Any, ...]:
    if isinstance(error, BaseExceptionGroup):
        return (error.message,)  # the members have a place of their own
    if isinstance(error, OSError) and error.filename is not None and len(error.args) == 2:
        # Given as the third argument, and kept apart from `args`.
        return (*error.args, error.filename, *(() if error.filename2 is None else (None, error.filename2)))
    return error.args[:20]


def _place_of(error: BaseException) -> dict[str, Any]:
    """Where it was raised, as fields of its record. `inside`: only Ergon's own frames are known.

    `place`: the last frame that is not the standard library's, where that is not the last of all.
    """
    walked = list(traceback.walk_tb(error.__traceback__))
    users = _without_library(walked)
    if walked and _is_own(walked[-1][0]):
        walked = users
    known = _known_frames(error)
    if theirs := [*_frames(walked), *known]:
        place = _frames(users)[-1:] if not known and len(users) < len(walked) else []
        return {"traceback": _shortened(theirs)} | ({"place": place[0]} if place else {})
    if walked:
        return {"traceback": _shortened(_frames(walked, own=True)), "inside": True}
    return {}


def users_line(error: BaseException) -> str:
    """`shop.py:50`, the last line on the way to where it was raised that is the user's; empty where there is none."""
    walked = traceback.walk_tb(error.__traceback__)
    theirs = [place for place in walked if not _is_own(place[0]) and not _is_library(place[0])]
    return f"{PurePath(theirs[-1][0].f_code.co_filename).name}:{theirs[-1][1]}" if theirs else ""


def _frames(walked: list[tuple[FrameType, int]], *, own: bool = False) -> list[str]:
    """`function (file.py:42)` for each frame, outermost first, that is not Ergon's own: the user can mend theirs.

    own: Ergon's, where there are no others.
    """
    return [
        cut(f"{frame.f_code.co_name} ({PurePath(frame.f_code.co_filename).name}:{line})", 300)
        for frame, line in walked
        if _is_own(frame) is own
    ]


def _without_library(walked: list[tuple[FrameType, int]]) -> list[tuple[FrameType, int]]:
    """Without the standard library's frames at the end: what it or Ergon refuses is refused to whoever called that."""
    theirs = [
        place for place, (frame, _) in enumerate(walked) if not _is_own(frame) and not _is_library(frame)
    ]
    return walked[: theirs[-1] + 1] if theirs else walked


def _is_library(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return file.startswith((_LIBRARY, "<frozen ")) and "site-packages" not in file


def _known_frames(error: BaseException) -> list[str]:
    """Where an error that was read back was raised first: in a step, or in a child flow."""
    known = getattr(error, "__dict__", {}).get(_KNOWN_FRAMES)
    return known if isinstance(known, list) else []


def _up_to(frames: list[str], place: str) -> list[str]:
    """The frames as far as the user's place; those of the standard library after it were told where it failed."""
    while frames and frames[-1] != place:
        frames.pop()
    return frames or [place]


def _shortened(frames: list[str]) -> list[str]:
    if len(frames) > FRAMES_MAX:
        frames[FRAMES_MAX // 4 : -FRAMES_MAX * 3 // 4] = ["… more …"]
    return frames


def _is_own(frame: FrameType) -> bool:
    """Whether it is code of Ergon's, also where that stands in for the standard library's under its name."""
    name = frame.f_globals.get("__name__", "")
    is_own = isinstance(name, str) and name.startswith("ergon.") and not name.startswith("ergon.demo.")
    return is_own or frame.f_code.co_filename.startswith(_STAND_INS)


def rebuild(text: str) -> Exception:
    """Make the error that `describe` wrote, or `StepFailed` where its class is not imported here or does not fit.

    Never raises for bad text, imports nothing, and runs no code that the text names.
    """
    try:
        return _rebuild(_decode(text), 0)
    except Exception:  # noqa: BLE001  # not JSON, not an object, nested too deeply: whatever is in the log
        return StepFailed("unknown error", "the record of this failure cannot be read")


def _rebuild(record: dict[str, Any], depth: int) -> Exception:
    error = _build(record)
    if depth < CHAIN_MAX:
        for key in ("cause", "context"):
            if isinstance(inner := record.get(key), dict):
                setattr(error, f"__{key}__", _rebuild(inner, depth + 1))
    frames = record.get("traceback")
    if isinstance(frames, list) and record.get("inside") is not True:  # that place says nothing to others
        known = [cut(frame, 300) for frame in frames[: FRAMES_MAX + 1] if isinstance(frame, str)]
        if isinstance(place := record.get("place"), str):
            known = _up_to(known, cut(place, 300))
        error.__dict__[_KNOWN_FRAMES] = known
    notes = record.get("notes")
    if isinstance(notes, list):
        for note in notes[:20]:
            if isinstance(note, str):
                error.add_note(note)
    return error


def _build(record: dict[str, Any]) -> Exception:
    module, qualname = record.get("module"), record.get("type")
    message = record.get("message")
    name = qualname if module in ("builtins", None) else f"{module}.{qualname}"
    failed = StepFailed(str(name), message if isinstance(message, str) else "")
    if not isinstance(module, str) or not isinstance(qualname, str):
        return failed
    kind = find_class(module, qualname)
    if kind is None or not issubclass(kind, Exception):
        return failed
    try:
        error = _build_kind(kind, record)
        if isinstance(message, str) and not message.startswith(_NO_MESSAGE):
            str(error)  # it had a message: without what did not travel it may have none
    except Exception:  # noqa: BLE001  # the class changed, or the record never fitted it
        return failed
    return error


def _build_kind(kind: type[Exception], record: dict[str, Any]) -> Exception:
    packed = record.get("args", [])
    args = tuple(unpack(arg) for arg in packed) if isinstance(packed, list) else ()
    if issubclass(kind, ExceptionGroup):
        members = [_rebuild(member, CHAIN_MAX - 1) for member in record.get("group", [])[:GROUP_MAX]]
        args = (str(args[0]) if args else "", members)
    # The nearest built-in class makes the object, as only it knows the layout; the user's __new__ never runs.
    base: Any = next(each for each in kind.__mro__ if each.__module__ == "builtins")
    error: Exception = base.__new__(kind, *args)
    if not isinstance(error, kind):
        raise TypeError("not the class asked for")
    base.__init__(error, *args)  # sets e.g. SyntaxError.lineno, UnicodeError.reason, StopIteration.value
    attrs = record.get("attrs")
    if isinstance(attrs, dict):
        declared = declared_types(kind)
        set_values(error, {name: unpack(value, declared.get(name)) for name, value in attrs.items()})
    return error
