"""Find the verb, run it, and turn whatever it raises into one line and an exit code.

A verb's module is imported when the verb is used, so that `ergon why` does not pay for `ergon demo`.
"""

from __future__ import annotations

import io
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final, NoReturn, TextIO

import click

from ergon.cli.options import namespace_before_the_verb
from ergon.cli.problems import (
    BAD_INPUT,
    ENDINGS,
    FAILED,
    INTERNAL,
    INTERRUPTED,
    OK,
    BadInput,
    Problem,
    exit_code_of,
)
from ergon.core.names import near
from ergon.errors import ErgonError

VERBS: Final = {
    "demo": "demo",
    "run": "run",
    "worker": "worker",
    "ls": "listing",
    "show": "show",
    "why": "show",
    "inbox": "show",
    "signal": "acts",
    "cancel": "acts",
    "kill": "acts",
    "pause": "acts",
    "resume": "acts",
    "retry": "acts",
    "delete": "acts",
    "workers": "worker",
    "namespaces": "namespaces",
    "doctor": "doctor",
}
"""Each verb and the module of this package it lives in."""


class Verbs(click.Group):
    """The verbs, imported on use."""

    # Whoever reads our output may stop (`ergon ls | head`). Click has an answer to that, another one in each release.
    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _reader_may_go():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _reader_may_go():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        found: click.Command = getattr(import_module(f"ergon.cli.{VERBS[cmd_name]}"), cmd_name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS and not args[0].startswith("-"):
            raise BadInput(
                f"there is no verb {args[0]!r}{near(args[0], VERBS, otherwise='.')} `ergon --help` lists all of them"
            )
        return super().resolve_command(ctx, args)


HELP: Final = f"""Run durable flows, look at them, and act on them.

The log comes from --log, else from the environment's ERGON_LOG, else it is ergon.db in this directory. One place
holds a log for each --namespace (ERGON_NAMESPACE), strangers to each other.

Exit codes: {"; ".join(f"{ending.code} {ending.meaning}" for ending in ENDINGS)}.

ERGON_DEBUG=1 shows tracebacks. NO_COLOR is honoured.
"""


@click.group(
    cls=Verbs, help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.option("--log", "url", metavar="URL", help="The same as --log after the verb.")
@namespace_before_the_verb
@click.version_option(package_name="ergon", prog_name="ergon")
def cli(url: str | None) -> None:
    """What is given before the verb; its options read it from here."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        _never_fail_on_a_character(stream)
    sys.exit(call(arguments))


def call(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        answer = cli.main(arguments, prog_name="ergon", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_is_gone()
    except SystemExit as error:
        return _code_of(error)  # the user's own code ends the process
    except Exception as error:  # noqa: BLE001 - told as a line and an exit code, as the user expects of a command
        code, line = sentence_of(error)
        if os.environ.get("ERGON_DEBUG", "") not in ("", "0"):
            traceback.print_exception(error)
        print(f"ergon: {line}", file=sys.stderr)
        return code
    return answer if isinstance(answer, int) else OK


def sentence_of(error: Exception) -> tuple[int, str]:
    """The exit code for an error and the line to show."""
    match error:
        case Problem():
            return error.exit_code, str(error)
        case click.ClickException():
            return BAD_INPUT, _of_click(error)
        case ErgonError() | OSError():  # a full disk, missing rights: the system's own words
            return exit_code_of(error), str(error)
        case _:
            return INTERNAL, (
                f"{type(error).__name__}: {error}. This is a mistake in Ergon; ERGON_DEBUG=1 shows where it happened"
            )


def _of_click(error: click.ClickException) -> str:
    """Click's complaint, with the verb's own help as the next move."""
    text = re.sub(r"\s*\n\s*", " ", error.format_message()).rstrip(".")
    text = text[:1].lower() + text[1:]
    if isinstance(error, click.NoSuchOption):  # click's own words differ from release to release
        nearest = f"; did you mean {error.possibilities[0]}?" if error.possibilities else ""
        text = f"there is no option {error.option_name!r}{nearest}"
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{text} (`{context.command_path} --help` says more)" if context is not None else text


def _never_fail_on_a_character(stream: TextIO) -> None:
    """A name that the terminal cannot show is shown escaped."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


def _code_of(error: SystemExit) -> int:
    """As Python itself ends: a number as it is, nothing as 0, anything else printed and 1."""
    if error.code is None or isinstance(error.code, int):
        return error.code or OK
    print(error.code, file=sys.stderr)
    return FAILED


@contextmanager
def _reader_may_go() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise click.exceptions.Exit(_reader_is_gone()) from None


def _reader_is_gone() -> int:
    """`ergon ls | head`: nobody reads any more, which is no error of ours."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OK
