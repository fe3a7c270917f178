"""From a URL to where the server is: what the driver gets, and what may be shown of it (never a password).

A URL may name several servers, as libpq's may. Which of them takes writes is found out by whoever dials, so each has an
address for the driver of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from ergon.core.namespaces import check_namespace, split_namespace, with_namespace
from ergon.errors import LogRefused

SCHEMES: Final = ("postgresql", "postgres")
_SECRET: Final = frozenset({"password", "sslpassword"})
_YES: Final = frozenset({"1", "true", "yes", "on"})
_NO: Final = frozenset({"0", "false", "no", "off"})
_WRITES: Final = frozenset({"any", "read-write", "primary"})
_SHAPE: Final = (
    "write it as postgresql://user:password@host:5432/database?schema=ergon, "
    "with %2F for a slash, %3F for a question mark, %23 for a hash and %40 for an at sign in the password"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One of those that a URL names."""

    name: str
    """As the URL has it; empty for the driver's own default."""
    dsn: str = field(repr=False)
    """For the driver: it may hold a secret among its options, and holds none of our own options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a log is. Its `repr` shows no secret."""

    servers: tuple[Server, ...]
    """In the order of the URL; at least one."""
    user: str | None
    password: str | None = field(repr=False)
    url: str
    """For other processes and for messages."""
    schema: str
    """Where the tables are: the one that was chosen, or its namespace's."""
    base_schema: str
    """The one that was chosen."""
    pgbouncer: bool
    application: str
    """What the server's own views call our sessions."""


def read_url(
    url: str, *, schema: str | None = None, namespace: str | None = None, pgbouncer: bool | None = None
) -> Address:
    """Take a URL apart. What is given beside it wins over its options. Raises `LogRefused`, `InvalidName`."""
    url, in_url = split_namespace(url)
    namespace = check_namespace(namespace if namespace is not None else in_url or "")
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        login, at, hosts = parts.netloc.rpartition("@")
        _check_ports(hosts)
    except ValueError:
        raise LogRefused(f"the URL of the PostgreSQL log cannot be read; {_SHAPE}") from None
    if parts.scheme.lower() not in SCHEMES:
        raise LogRefused(f"{parts.scheme!r} URLs are not PostgreSQL's; {_SHAPE}")
    if parts.fragment:
        raise LogRefused("the URL of the PostgreSQL log holds a '#'; in a password, write it as %23")
    # The rest of a password that began like a port: it must not be shown as a database or an option.
    if "@" in parts.path or "@" in parts.query:
        raise LogRefused(f"the URL of the PostgreSQL log holds an '@' behind its host; {_SHAPE}")
    named, bounced = options.pop("schema", None), options.pop("pgbouncer", None)
    _check_target(options.get("target_session_attrs", "any"))
    schema = schema if schema is not None else named if named is not None else "ergon"
    _check_schema(schema, namespace)
    if pgbouncer is None:
        pgbouncer = _flag(bounced)
    try:
        servers = _servers(parts, hosts, options)
    except ValueError:
        raise LogRefused(
            f"the URL of the PostgreSQL log has a host without a name, or not one port for each host; {_SHAPE}"
        ) from None
    user, _, password = login.partition(":")
    plain = parts._replace(scheme="postgresql", netloc=hosts, fragment="")
    shown = {key: value for key, value in options.items() if key not in _SECRET}
    if schema != "ergon":
        shown["schema"] = schema
    if namespace:
        shown["namespace"] = namespace
    if pgbouncer:
        shown["pgbouncer"] = "1"
    return Address(
        servers=servers,
        user=unquote(user) or None,
        password=unquote(password) or None,
        url=_unsplit(plain._replace(netloc=f"{user}{at}{hosts}" if user else hosts, query=urlencode(shown))),
        schema=with_namespace(schema, namespace),
        base_schema=schema,
        pgbouncer=pgbouncer,
        application=options.get("application_name", "ergon"),
    )


def _servers(parts: SplitResult, hosts: str, options: dict[str, str]) -> tuple[Server, ...]:
    """Give each server that the URL names an address that names it alone; without any, the driver's own default."""
    options = {key: value for key, value in options.items() if key != "target_session_attrs"}
    plain = parts._replace(scheme="postgresql", fragment="")
    if hosts:  # for the driver, too, they win over options
        return tuple(
            Server(name=host, dsn=urlunsplit(plain._replace(netloc=host, query=urlencode(options))))
            for host in _each(hosts)
        )
    names, ports = _each(options.get("host", "")), options.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(names)
    servers = []
    for name, port in zip(names, ports, strict=True):
        where = {key: value for key, value in (("host", name), ("port", port)) if value}
        query = urlencode({**options, **where})
        servers.append(
            Server(
                name=f"{name}:{port}" if port else name,
                dsn=urlunsplit(plain._replace(netloc="", query=query)),
            )
        )
    return tuple(servers)


def _each(hosts: str) -> list[str]:
    found = hosts.split(",")
    if len(found) > 1 and not all(found):
        raise ValueError
    return found


def _unsplit(parts: object) -> str:
    text = urlunsplit(parts)  # type: ignore[call-overload]
    # Without a host `urlunsplit` drops the two slashes, and what is left names no server to most programs.
    return str(text if text.startswith("postgresql://") else text.replace("postgresql:", "postgresql://", 1))


def _check_ports(hosts: str) -> None:
    for host in hosts.split(","):
        port = host.rpartition("]")[2].rpartition(":")[2] if ":" in host.rpartition("]")[2] else ""
        if port and not 0 < int(port) < 65536:
            raise ValueError


def _check_schema(schema: str, namespace: str) -> None:
    if not schema or "\0" in schema or len(schema.encode("utf-8", "replace")) > 63:
        raise LogRefused(f"schema={schema!r} is no name for a schema: PostgreSQL takes 1 to 63 bytes")
    if len(with_namespace(schema, namespace).encode("utf-8", "replace")) > 63:
        raise LogRefused(
            f"namespace={namespace!r} of schema {schema!r} is too long: its schema's name, "
            f"{with_namespace(schema, namespace)!r}, would have more than 63 bytes; shorten one of them"
        )
    if schema.startswith("pg_") or schema == "information_schema":
        raise LogRefused(f"schema={schema!r} is PostgreSQL's own; choose another name")
    try:
        schema.encode()
    except UnicodeEncodeError:
        raise LogRefused(f"schema={schema!r} holds a lone surrogate, which is not text") from None


def _check_target(wanted: str) -> None:
    if wanted not in _WRITES:
        raise LogRefused(
            f"target_session_attrs={wanted!r} in the URL: a log needs the server that takes writes; leave it out, or "
            "say read-write"
        )


def _flag(text: str | None) -> bool:
    if text is None or text.lower() in _NO:
        return False
    if text.lower() in _YES:
        return True
    raise LogRefused(f"pgbouncer={text!r} in the URL is neither 1 nor 0")
