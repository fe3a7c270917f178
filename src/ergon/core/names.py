"""What a flow id, a flow name, a signal name or a key may look like, the same on every log; and which one is meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ergon.errors import InvalidName

NAME_CHARS_MAX: Final = 512
"""Long enough for a child id that carries its parents' ids, short enough for every log's index."""


def check_name(kind: str, value: object) -> str:
    """Return `value` when it can be kept by every log, else raise `InvalidName`.

    Any text goes, quotes and separators too, except control characters (PostgreSQL cannot keep U+0000, and
    terminals act on the rest), lone surrogates, leading or trailing white space, and more than 512 characters.
    """
    if not isinstance(value, str):
        raise InvalidName(f"{kind} must be a str, not {type(value).__name__}")
    if not value:
        raise InvalidName(f"{kind} is empty; give it at least one character")
    if len(value) > NAME_CHARS_MAX:
        raise InvalidName(f"{kind} has {len(value)} characters; at most {NAME_CHARS_MAX} are allowed")
    if value.isascii() and value.isprintable():
        if value[0] == " " or value[-1] == " ":
            raise InvalidName(f"{kind} {value!r} begins or ends with white space; strip it")
        return value
    return _check_rare(kind, value)


def check_tags(kind: str, tags: Iterable[str]) -> tuple[str, ...]:
    """Return `tags` sorted, each once, when every one can be kept by every log, else raise `InvalidName`."""
    if isinstance(tags, str):
        raise InvalidName(f"{kind}s must be several, such as a tuple; write ({tags!r},) for one")
    return tuple(sorted({check_name(kind, tag) for tag in tags}))


def near(word: str, known: Iterable[str], *, ask: str = "; did you mean {}?", otherwise: str = "") -> str:
    """A hint at the known word that looks most like `word`, or `otherwise` where none does."""
    from difflib import get_close_matches  # for messages only

    found = get_close_matches(word, list(dict.fromkeys(known)), n=1, cutoff=0.5)
    return ask.format(found[0]) if found else otherwise


def _check_rare(kind: str, value: str) -> str:
    if value != value.strip():
        raise InvalidName(f"{kind} {value!r} begins or ends with white space; strip it")
    for char in value:
        code = ord(char)
        if code < 32 or 127 <= code < 160:
            raise InvalidName(f"{kind} {value!r} holds the control character U+{code:04X}; remove it")
        if 0xD800 <= code <= 0xDFFF:
            raise InvalidName(f"{kind} {value!r} holds a lone surrogate, which is not text; remove it")
    return value
