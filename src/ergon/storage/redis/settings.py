"""From a URL to settings, and what of them may be shown: never the password."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from ergon.core.namespaces import OPTION, check_namespace, split_namespace
from ergon.core.release import VERSION
from ergon.errors import LogRefused

DEFAULT_PREFIX: Final = "ergon"
NAMESPACE_MARK: Final = "/"
_PORT: Final = 6379
_SCHEMES: Final = {"redis": False, "valkey": False, "rediss": True, "valkeys": True, "unix": False}
_TLS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
_OURS: Final = ("db", "ephemeral", "flushed", "prefix", "replicas")
_YES: Final = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}
_EXAMPLE: Final = "redis://user:password@host:6379/0?prefix=ergon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to reach the server, and what is asked of it."""

    scheme: str
    host: str = "localhost"
    port: int = _PORT
    path: str | None = None
    """The unix socket."""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    prefix: str = DEFAULT_PREFIX
    """The one that was chosen. Keys begin with `root`."""
    namespace: str = ""
    ephemeral: bool = False
    """Whether a server may be used that loses what it acknowledged."""
    tls: dict[str, Any] = field(default_factory=dict)
    busy_timeout_seconds: float = 30.0
    replicas: int = 0
    """How many replicas must have each write, in memory at least, before it counts as done."""
    flushed: bool = False
    """Whether a write counts as done only once it is on disk, whatever the server's `appendfsync` says."""
    create: bool = True
    """Make a new log where there is none."""

    @property
    def url(self) -> str:
        """The same without the password."""
        user = f"{quote(self.username, safe='')}@" if self.username else ""
        options = {"prefix": self.prefix} if self.prefix != DEFAULT_PREFIX else {}
        if self.namespace:
            options["namespace"] = self.namespace
        if self.ephemeral:
            options["ephemeral"] = "true"
        if self.replicas:
            options["replicas"] = str(self.replicas)
        if self.flushed:
            options["flushed"] = "true"
        if self.path is not None:
            options = {"db": str(self.db), **options} if self.db else options
            place = f"unix://{user}{quote(self.path)}"
        else:
            host = f"[{self.host}]" if ":" in self.host else self.host
            place = f"{self.scheme}://{user}{host}:{self.port}/{self.db}"
        return place + (f"?{urlencode(options)}" if options else "")

    @property
    def root(self) -> str:
        """How this log's keys begin. No prefix holds the slash, so nobody's own leads into a namespace."""
        return f"{self.prefix}{NAMESPACE_MARK}{self.namespace}" if self.namespace else self.prefix

    @property
    def where(self) -> str:
        """For messages."""
        return self.url

    def client_options(self) -> dict[str, Any]:
        """What redis-py needs to connect, but for the address."""
        options: dict[str, Any] = {"username": self.username, "password": self.password, **introduction()}
        if _SCHEMES[self.scheme]:
            options |= {"ssl": True, **self.tls}
        return options


@cache
def introduction() -> dict[str, Any]:
    """What redis-py is to tell a server about its client: `CLIENT LIST` then names Ergon and its version.

    Left to itself, redis-py 8 reads its own package's metadata for each client again: 2.6 ms, twice.
    """
    try:
        from redis.driver_info import DriverInfo
    except ImportError:  # before 7.2, which reads them once
        return {}
    return {"driver_info": DriverInfo().add_upstream_driver("ergon", VERSION)}


def parse(
    url: str,
    *,
    prefix: str | None = None,
    namespace: str | None = None,
    ephemeral: bool | None = None,
    busy_timeout_seconds: float = 30.0,
    replicas: int | None = None,
    flushed: bool | None = None,
    create: bool = True,
) -> Settings:
    """Read a URL; what is given beside it counts more than what stands in it. Raises `LogRefused`, `InvalidName`.

    No message quotes the URL: a password with a slash in it can end up in any part.
    """
    url, in_url = split_namespace(url)
    namespace = check_namespace(namespace if namespace is not None else in_url or "")
    split = _split(url)
    # An '@' in the query: the rest of a password with a bare question mark, which must not be shown as an option.
    if split is None or split.scheme.lower() not in _SCHEMES or split.fragment or "@" in split.query:
        raise LogRefused(
            f"this is no URL of a Redis or Valkey server; write it as {_EXAMPLE}, with %2F for a slash, %3F for a "
            "question mark, %23 for a hash and %40 for an at sign in the password"
        )
    scheme, host, username, password = split.scheme.lower(), split.hostname, split.username, split.password
    options = dict(parse_qsl(split.query, keep_blank_values=True))
    unknown = sorted(set(options) - {*_OURS, *_TLS})
    if unknown:
        raise LogRefused(
            f"a Redis URL has no option {unknown[0]!r}; there are {', '.join((*_OURS, OPTION, *_TLS))}"
        )
    return Settings(
        scheme=scheme,
        host=unquote(host) if host else "localhost",
        port=split.port or _PORT,
        path=unquote(split.path) if scheme == "unix" else None,
        db=_db(options.get("db") if scheme == "unix" or "db" in options else split.path.strip("/")),
        username=unquote(username) if username else None,
        password=unquote(password) if password else None,
        prefix=_prefix(prefix if prefix is not None else options.get("prefix", DEFAULT_PREFIX)),
        namespace=namespace,
        ephemeral=ephemeral if ephemeral is not None else _flag("ephemeral", options.get("ephemeral", "0")),
        tls=_tls(options),
        busy_timeout_seconds=busy_timeout_seconds,
        replicas=replicas if replicas is not None else _replicas(options.get("replicas", "0")),
        flushed=flushed if flushed is not None else _flag("flushed", options.get("flushed", "0")),
        create=create,
    )


def _split(url: str) -> SplitResult | None:
    try:
        split = urlsplit(url)
        return split if split.port != 0 else None
    except ValueError:  # the port is no number: perhaps it is a part of the password
        return None


def _db(text: str | None) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise LogRefused("the database of a Redis URL, after the slash, is a number such as 0")
    return int(text)


def _replicas(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 4):
        raise LogRefused("replicas in a Redis URL is a number such as 1")
    return int(text)


def _prefix(text: str) -> str:
    """A prefix is a part of key names, of a hash tag and of an ACL pattern: plain letters only."""
    plain = text.replace("-", "").replace("_", "").replace(".", "").replace(":", "")
    if not text or not plain.isascii() or not plain.isalnum() or len(text) > 64:
        raise LogRefused(f"prefix={text!r}: use up to 64 letters, digits, and any of - _ . :")
    return text


def _flag(name: str, text: str) -> bool:
    if text.lower() not in _YES:
        raise LogRefused(f"{name}={text!r} in a Redis URL is neither true nor false")
    return _YES[text.lower()]


def _tls(options: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {name: options[name] for name in _TLS if name in options}
    if "ssl_check_hostname" in found:
        found["ssl_check_hostname"] = _flag("ssl_check_hostname", found["ssl_check_hostname"])
    if found.get("ssl_cert_reqs", "required") not in ("required", "optional", "none"):
        raise LogRefused("ssl_cert_reqs in a Redis URL is required, optional or none")
    if found.get("ssl_cert_reqs") == "none":
        found["ssl_check_hostname"] = False
    return found
