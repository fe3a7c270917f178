"""A failure record may be written by anyone who can write to the log: it can become an error, and nothing else."""

from __future__ import annotations

import base64
import json
import pickle
import sys
from typing import Any, ClassVar, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ergon.core.failure import rebuild
from ergon.errors import StepFailed


class Bomb:
    def __reduce__(self) -> Any:
        return (print, ("boom",))


PICKLED = base64.b64encode(pickle.dumps(Bomb())).decode()

HOSTILE = [
    PICKLED,
    json.dumps(PICKLED),
    json.dumps({"module": "builtins", "type": PICKLED, "args": [PICKLED]}),
    '{"module":"os","type":"system","args":["echo boom"]}',
    '{"type":"os.system","args":["echo boom"]}',
    '{"__type__":"os.system"}',
    '{"module":"subprocess","type":"Popen","args":[["echo","boom"]]}',
    '{"module":"builtins","type":"eval","args":["print(1)"]}',
    '{"module":"builtins","type":"KeyboardInterrupt"}',
    '{"module":"builtins","type":"SystemExit","args":[3]}',
    '{"module":"builtins","type":"BaseExceptionGroup","args":["x"],"group":[]}',
    '{"module":"builtins","type":"ExceptionGroup","args":["x"],"group":[]}',
    '{"module":"builtins","type":"ExceptionGroup","args":["x"],"group":"abc"}',
    '{"module":"builtins","type":"object"}',
    '{"module":"builtins","type":"type"}',
    '{"module":"builtins","type":"ValueError.__class__"}',
    '{"module":"builtins","type":"ValueError.__subclasses__"}',
    '{"module":"builtins","type":"UnicodeDecodeError","args":[1]}',
    '{"module":"antigravity","type":"Error"}',
    '{"module":"os.path","type":"os.system"}',
    '{"module":"sys","type":"modules"}',
    '{"module":["a"],"type":{"b":1}}',
    '{"module":"builtins","type":"ValueError","args":[{"$":"pickle","v":"gASV"}]}',
    '{"module":"builtins","type":"ValueError","args":[{"$":["x"],"v":1}]}',
    '{"module":"builtins","type":"ValueError","args":[{"$":"set","v":[[1]]}]}',
    '{"module":"builtins","type":"ValueError","attrs":{"a":{"$":"decimal","v":[]}}}',
    '{"module":"builtins","type":"ValueError","args":' + "[" * 100_000 + "]" * 100_000 + "}",
    "",
    "null",
    "[]",
    "{}",
    '{"module":',
    "\x80\x04\x95",
    '"\ufeff"',
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:40])
def test_hostile_records_become_step_failed_and_run_nothing(
    text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    modules = set(sys.modules)

    assert type(rebuild(text)) is StepFailed

    assert set(sys.modules) == modules, "nothing is imported"
    assert capfd.readouterr() == ("", "")


class Guarded(Exception):
    made: ClassVar[list[str]] = []

    def __new__(cls, *args: Any) -> Self:
        cls.made.append("new")
        return super().__new__(cls, *args)

    def __init__(self, *args: Any) -> None:
        self.made.append("init")

    @property
    def size(self) -> int:
        return 1

    @size.setter
    def size(self, value: int) -> None:
        self.made.append("setter")

    def is_retryable(self) -> bool:
        return False


def test_no_code_of_the_class_runs_and_its_methods_cannot_be_replaced() -> None:
    module, name = Guarded.__module__, Guarded.__qualname__
    attrs = {"size": 5, "is_retryable": "yes", "__class__": "x", "made": 1, "extra": 2}

    error = rebuild(json.dumps({"module": module, "type": name, "args": [1], "attrs": attrs}))

    assert type(error) is Guarded
    assert Guarded.made == []
    assert error.is_retryable() is False
    assert error.size == 1
    assert vars(error)["extra"] == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["$", "v", "module", "type", "args", "group", "cause"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=80)
@given(
    st.sampled_from(["ValueError", "OSError", "ExceptionGroup", "UnicodeError", "object", "x.y"]),
    st.dictionaries(
        st.sampled_from(["args", "attrs", "group", "cause", "context", "notes", "message", "traceback"]),
        json_values,
    ),
)
def test_no_record_makes_rebuild_raise(name: str, rest: dict[str, Any]) -> None:
    assert isinstance(rebuild(json.dumps({"module": "builtins", "type": name, **rest})), Exception)
