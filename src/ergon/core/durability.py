"""The durability classes: what a log's live settings survive. Each survives all that the ones before it do."""

from __future__ import annotations

from typing import Final

from ergon.errors import LogRefused

SURVIVES: Final = {
    "D0": "nothing: it ends with its process",
    "D1": "worker crashes",
    "D2": "worker crashes and a crash of the database",
    "D3": "worker crashes, a crash of the system and power loss",
    "D4": "worker crashes, power loss and the loss of the machine",
}


def check_class(require: str | None) -> str | None:
    """Return the class that somebody requires, None for any. Raises `LogRefused` for what is no class."""
    if require is not None and require not in SURVIVES:
        raise LogRefused(f"require={require!r} is no durability class; the classes are {', '.join(SURVIVES)}")
    return require
