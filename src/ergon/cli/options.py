"""What verbs share: the options, opening the log, finding a flow, and running async code."""

from __future__ import annotations

import asyncio
import functools
import json
import math
import re
import shlex
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import click
from click.core import ParameterSource

from ergon.cli.problems import BadInput, NothingFound
from ergon.core.commit import FlowFilter, FlowRecord
from ergon.core.names import check_name, near
from ergon.core.namespaces import check_namespace
from ergon.opening import MEMORY_URL, open_log
from ergon.storage.log import ExecutionLog

P = ParamSpec("P")
R = TypeVar("R")

_NAMESPACE: Final = "ergon.namespace"
SUGGESTED_FROM_MAX: Final = 500
"""How many ids or names a "did you mean" looks at."""


def _or_before_the_verb(context: click.Context, parameter: click.Parameter, url: str | None) -> str | None:
    """`ergon --log PATH show ID` is `ergon show ID --log PATH`; the environment's comes after both."""
    if context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE:
        return url
    before: str | None = context.find_root().params.get("url")
    return before if before is not None else url


def _keep_namespace(context: click.Context, _parameter: click.Parameter, name: str | None) -> None:
    """For `namespace_given`: no verb but has it, and none needs to hand it on."""
    if name is not None:
        context.meta[_NAMESPACE] = check_namespace(name)


def namespace_given() -> str | None:
    """What `--namespace` says, before the verb or after it; None where it is not given."""
    context = click.get_current_context(silent=True)
    return context.meta.get(_NAMESPACE) if context is not None else None


def _namespace_option(help_text: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    return click.option(
        "--namespace", metavar="NAME", expose_value=False, callback=_keep_namespace, help=help_text
    )


namespace_before_the_verb = _namespace_option("The same as --namespace after the verb.")
_url_option = click.option(
    "--log",
    "url",
    envvar="ERGON_LOG",
    metavar="URL",
    callback=_or_before_the_verb,
    help="Execution log: a file path, postgresql://HOST/DATABASE or redis://HOST. Default: ERGON_LOG, else ergon.db.",
)


def log_option(function: Callable[P, R]) -> Callable[P, R]:
    """Which log: `--log`, handed on as `url`, and `--namespace`, which `opened` asks for."""
    text = "A log of its own at that place, such as one for each tenant. Default: ERGON_NAMESPACE, else none."
    return _url_option(_namespace_option(text)(function))


require_option = click.option(
    "--require",
    metavar="CLASS",
    help="Refuse a log whose live settings survive less: D1 worker crashes, D3 also power loss, "
    "D4 also the loss of the machine. Default: any.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON with stable field names.")


def asynchronous(function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """Let an `async def` be a click callback."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return asyncio.run(function(*args, **kwargs))

    return call


@asynccontextmanager
async def opened(
    url: str | None, *, create: bool = False, require: str | None = None
) -> AsyncIterator[ExecutionLog]:
    """The log, connected. Only verbs that run flows may make a new one.

    Raises `BadInput` where there is none, so that a mistyped path never becomes an empty log.
    """
    log = open_log(url or None, namespace=namespace_given(), require=require, create=create)
    if not create:
        if is_memory(log):
            raise BadInput("a memory: log lives and ends with its own process; give the path of a file")
        path = path_of(log)
        if path is not None and not path.exists():
            raise BadInput(
                f"there is no log at {path}; name one with --log or ERGON_LOG. (`ergon run`, `ergon worker` and "
                "programs create one)"
            )
    async with log:
        yield log


def path_of(log: ExecutionLog) -> Path | None:
    """The log's file; None for one that is not a file."""
    path = getattr(log, "path", None)
    return path if isinstance(path, Path) else None


def is_memory(log: ExecutionLog) -> bool:
    """Tell whether no other process can see the log."""
    return log.url.partition("?")[0] == MEMORY_URL


def next_command(verb: str, flow_id: str) -> str:
    """What to type next about a flow: on the log that this command was given, where it was given one."""
    context = click.get_current_context(silent=True)
    given = ""
    while context is not None:
        if context.get_parameter_source("url") is ParameterSource.COMMANDLINE:
            url = str(context.params["url"])
            given = f" --log {'URL' if '@' in url else shlex.quote(url)}"  # no password in any message
            break
        context = context.parent
    name = namespace_given()
    if name is not None:
        given += f" --namespace {shlex.quote(name)}"
    return f"`ergon {verb} {shlex.quote(flow_id)}{given}`"


async def find_flow(log: ExecutionLog, flow_id: str) -> FlowRecord:
    """The flow with this id. Raises `NothingFound` with the nearest id, `InvalidName`."""
    record = await log.find(check_name("flow id", flow_id))
    if record is not None:
        return record
    raise NothingFound(f"no flow has the id {flow_id!r} in this log{await nearest(log, flow_id)}")


async def nearest(log: ExecutionLog, flow_id: str) -> str:
    """A question for whoever mistyped an id; empty where none is like it."""
    starts_alike, _ = await log.list(FlowFilter(id_prefix=flow_id[:4]), limit=SUGGESTED_FROM_MAX)
    recent, _ = await log.list(FlowFilter(), limit=SUGGESTED_FROM_MAX)
    return near(flow_id, [flow.id for flow in (*starts_alike, *recent)], ask="; did you mean {!r}?")


def read_json(text: str, option: str) -> Any:
    """The JSON given to an option, or in the file it names as `@file.json`. Raises `BadInput`."""
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{option}: cannot read the file {text[1:]!r}: {_why(error)}") from None
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        hint = f"; a text needs quotes: '{json.dumps(text)}'" if re.fullmatch(r"[\w .:/-]+", text) else ""
        raise BadInput(f"{option} {_cut(text)!r} is not JSON: {error}{hint}") from None
    if (place := _too_large(value)) is not None:
        raise BadInput(f"{option}: {place} is a number too large for a float; give a smaller one, or a text")
    return value


def _too_large(value: Any) -> str | None:
    """Where a number is that Python read as infinity, such as `$.items[3].price`."""
    left = [("$", value)]
    while left:
        place, found = left.pop()
        if isinstance(found, dict):
            left += [(f"{place}.{key}", each) for key, each in found.items()]
        elif isinstance(found, list):
            left += [(f"{place}[{index}]", each) for index, each in enumerate(found)]
        elif isinstance(found, float) and math.isinf(found):
            return place
    return None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON value")


def _why(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8 text"


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"


UNITS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}


def read_since(text: str, now: float) -> float:
    """A time in the past: `90s`, `10m`, `2h`, `3d`, or an ISO date, in local time unless it says. Raises `BadInput`."""
    age = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.strip())
    if age is not None and age[2] in UNITS:
        return now - float(age[1]) * UNITS[age[2]]
    try:
        at = datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        at = math.nan
    if math.isnan(at):
        raise BadInput(
            f"--since {text!r} is neither an age (90s, 10m, 2h, 3d) nor a date (2026-05-31, 2026-05-31T14:00:00Z)"
        )
    return at
