"""What a namespace may be called, the same on every log, and how it is read from a URL.

Each store makes a place of its own from a namespace: a schema, a prefix of keys, a file. No other name may lead there,
so what parts the two words (`SEPARATOR` where the place is a file or a schema) is never in a namespace's name.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

from ergon.errors import InvalidName

SEPARATOR: Final = "__"
NAMESPACE_CHARS_MAX: Final = 40
OPTION: Final = "namespace"
_LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")


def check_namespace(name: object) -> str:
    """Return a namespace's name when every log can keep it apart, else raise `InvalidName`. Empty: none.

    Lower case, since some file systems do not tell `Acme` from `acme`.
    """
    if isinstance(name, str) and (not name or is_namespace(name)):
        return name
    raise InvalidName(
        f"namespace={name!r}: use 1 to {NAMESPACE_CHARS_MAX} of a-z and 0-9, with single - or _ between them, such "
        "as 'acme' or 'team-7'"
    )


def is_namespace(name: str) -> bool:
    """Tell whether a text can be a namespace's name."""
    if len(name) > NAMESPACE_CHARS_MAX:
        return False
    return all(part and _LETTERS.issuperset(part) for part in name.replace("-", "_").split("_"))


def with_namespace(place: str, namespace: str) -> str:
    """The name of a namespace's own place, beside that of the log without one."""
    return f"{place}{SEPARATOR}{namespace}" if namespace else place


def namespace_of(place: str, base: str) -> str | None:
    """The namespace whose place beside `base` this is; None when it is no such place."""
    name = place.removeprefix(base + SEPARATOR)
    return name if name != place and name and is_namespace(name) else None


def split_namespace(url: str) -> tuple[str, str | None]:
    """A URL without its option `namespace`, and that option; None where it has none."""
    place, mark, query = url.rpartition("?")
    options = query.split("&")
    given = [option for option in options if option.startswith(f"{OPTION}=")]
    if not mark or not given:
        return url, None
    rest = "&".join(option for option in options if option not in given)
    return (f"{place}?{rest}" if rest else place), unquote(given[-1].removeprefix(f"{OPTION}="))
