"""Find the behaviours: every function `test_*` in the modules named here.

`ALONE` can be tested with one handle, `SHARED` open several on one store or open one again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, Final

import pytest

ALONE: Final = (
    "atomicity",
    "fencing",
    "dead_workers",
    "history",
    "claiming",
    "fitting",
    "due",
    "leases",
    "takeover",
    "giving_back",
    "stalled",
    "messages",
    "consuming",
    "waking",
    "arrivals",
    "children",
    "child_ends",
    "child_cancels",
    "cancelling",
    "operators",
    "killing",
    "rescheduling",
    "retrying",
    "creating",
    "catalog",
    "listing",
    "deleting",
    "values",
    "hostile",
    "odd",
    "hints",
    "life",
    "repeats",
    "namespaces",
    "differential",
)
SHARED: Final = ("several_handles", "contention", "reopening", "interruption", "differential_handles")
PACKAGE: Final = __name__.rpartition(".")[0]

Behaviour = Callable[..., Any]

pytest.register_assert_rewrite(*(f"{PACKAGE}.{module}" for module in (*ALONE, *SHARED, "kit")))


def behaviours(modules: Iterable[str]) -> dict[str, Behaviour]:
    """The behaviours of these modules by name."""
    found: dict[str, Behaviour] = {}
    for module in modules:
        for name, value in vars(import_module(f"{PACKAGE}.{module}")).items():
            if name.startswith("test_"):
                assert name not in found, f"two behaviours are called {name}; one would hide the other"
                found[name] = value
    return found


def for_pytest(modules: Iterable[str]) -> dict[str, Any]:
    """All that a test module needs in order to run these behaviours."""
    from ergon.testing.conformance.fixtures import log

    return {"log": log, "pytestmark": pytest.mark.asyncio, **behaviours(modules)}
