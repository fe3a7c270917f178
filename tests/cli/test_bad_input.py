"""Whatever is typed wrong gets one line that says what was wrong and what would be right. Never a traceback."""

from pathlib import Path

import pytest

from ergon.cli.app import VERBS, sentence_of
from ergon.cli.problems import ENDINGS
from ergon.errors import FlowIdConflict, IllegalMove, LogRefused, LogTooNew, StoreError


@pytest.mark.parametrize(
    "typed,code,words",
    [
        ("lss", 2, ["no verb 'lss'", "did you mean ls?"]),
        ("frobnicate", 2, ["no verb 'frobnicate'. `ergon --help` lists"]),
        ("ls --status xyzzy", 2, ["'xyzzy' is no status. They are: pending"]),
        ("run shop.py:xyzzy", 2, ["no flow 'xyzzy' in shop.py. Found there: "]),
        ("--log typo.db ls", 2, ["there is no log at", "typo.db"]),
        (
            'run shop.py:count --input {"n":1,"m":2}',
            2,
            ["int: it has parameters that the flow does not take: m"],
        ),
        (
            'run shop.py:takes_more --input {"n":1,"c":4}',
            2,
            ['does not take: c; further keyword arguments go into "more": {"c": ...}\n'],
        ),
        (
            'run shop.py:takes_more --input {"c":4}',
            2,
            ["has no `n`, and it has `c`, which", '; further keyword arguments go into "more": {"c": ...}\n'],
        ),
        (
            "ls --statis failed",
            2,
            ["ergon: there is no option '--statis'; did you mean --status? (`ergon ls --help` says more)\n"],
        ),
        ("ls --xyzzy", 2, ["ergon: there is no option '--xyzzy' (`ergon ls --help` says more)\n"]),
        ("why", 2, ["ergon: missing argument 'ID' (`ergon why --help` says more)\n"]),
        ("ls --limit", 2, ["ergon: option '--limit' requires an argument\n"]),
        ("ls --status complete", 2, ["'complete' is no status", "did you mean completed?"]),
        ("ls --since yesterday", 2, ["'yesterday'", "10m", "2026-05-31"]),
        ("ls --limit 0", 2, ["--limit"]),
        ("ls --after zzz", 2, ["--after 'zzz'", "page before"]),
        ("ls --watch --json", 2, ["--watch"]),
        ("ls --name cuont", 1, ["no flow matches", "did you mean --name count?"]),
        ("ls --status failed", 1, ["no flow matches"]),
        ("show cuont-1", 1, ["no flow has the id 'cuont-1'", "did you mean 'count-1'?"]),
        ("why nothing-like-it", 1, ["no flow has the id"]),
        ("why", 2, ["ID"]),
        ("signal count-1 go --value yes", 2, ["--value 'yes' is not JSON", """'"yes"'"""]),
        ("signal count-1 go --value @nowhere.json", 2, ["cannot read the file 'nowhere.json'"]),
        ("cancel count-1", 2, ["has ended (completed)"]),
        ("pause count-1", 2, ["has ended (completed)"]),
        ("kill count-1", 2, ["has ended (completed)"]),
        ("resume count-1", 2, ["only a paused or parked flow"]),
        ("retry count-1", 2, ["only a failed flow"]),
        ("retry count-1 --now", 2, ["nothing of it waits to be tried again"]),
        ("run shop.py", 2, ["say which"]),
        ("run shop.py:cuont", 2, ["no flow 'cuont'", "did you mean count?"]),
        ("run nowhere.py:count", 2, ["no file nowhere.py"]),
        ("run nowhere:count", 2, ["no module nowhere"]),
        ("run sh/op:count", 2, ["no file sh/op"]),
        ("run empty.py:x", 2, ["no function decorated with @flow"]),
        ("run broken.py:x", 2, ["importing broken.py raised ZeroDivisionError", "broken.py:1"]),
        ("run needs.py:x", 2, ["importing needs.py raised ModuleNotFoundError"]),
        ("run shop.py:count --input {}", 2, ["--input does not fit count(n: int) -> int: it has no `n`"]),
        (
            'run shop.py:count --input {"m":1}',
            2,
            ["count(n: int) -> int: it has no `n`, and it has `m`, which the flow does not take"],
        ),
        (
            'run shop.py:count --input {"n":"x"}',
            2,
            ["count(n: int) -> int: argument `n`: the value does not fit: expected `int`, got `str`"],
        ),
        ('run shop.py:count --input {"n":"x"}', 2, ["expected `int`"]),
        ("run shop.py:count --input [1]", 2, ["JSON object", '"n"']),
        ('run shop.py:count --input {"n":2} --id count-1', 2, ["another input"]),
        ("run shop.py:count --input {n}", 2, ["is not JSON"]),
        ('run shop.py:count --input {"n":[0,{"m":1e400}]}', 2, ["--input: $.n[1].m is a number too large"]),
        ("run shop.py:main", 2, ["'main' in shop.py is no flow: it is not decorated with @flow", "count"]),
        ("run unread.py:x", 2, ["importing unread.py raised SyntaxError", " (unread.py:2); "]),
        ("run twice.py:f", 2, ["name of several flows, f (line 2) and other (line 4)", "@flow(name=...)"]),
        ("worker", 2, ["TARGET"]),
        ("worker shop.py --capacity 0", 2, ["capacity"]),
        ("worker shop.py --drain -1", 2, ["drain"]),
        ("worker shop.py --version >=blue", 2, ["'>=blue'", "such as '>=1.2'", "dotted numbers"]),
        ("demo nowhere", 2, ["nowhere"]),
        ("doctor --log mysql://u:hunter2@db/x", 2, ["mysql"]),
        ("ls --log postgres//u:hunter2@h/db", 2, ["is not written as scheme://user:password@host"]),
        ("ls --log u:hunter2@h/db", 2, ["is not written as scheme://user:password@host"]),
        ("show x --log sqlite:u:hunter2@h?x=1", 2, ["is not written as scheme://"]),
        ("worker shop.py --processes 2 --log //u:hunter2@h", 2, ["is not written as scheme://"]),
        ("doctor --log postgres//u:hunter2@h/db", 2, ["is not written as scheme://"]),
        ("ls --log memory:", 2, ["own process"]),
        ("ls --log .", 2, ["is a directory"]),
        ("ls --log shop.py", 1, ["shop.py"]),
    ],
)
def test_bad_input_gets_one_line_and_an_exit_code(ergon, here, typed, code, words) -> None:
    (here / "empty.py").write_text("")
    (here / "broken.py").write_text("1 / 0")
    (here / "needs.py").write_text("import nothing_of_that_name")
    (here / "unread.py").write_text("n = 1\ndef f(:\n")
    (here / "twice.py").write_text(
        "from ergon import flow\n@flow\nasync def f(): ...\n@flow(name='f')\nasync def other(): ...\n"
    )
    with (here / "shop.py").open("a") as shop:
        shop.write("def main(): ...\n")
    ergon("run", "shop.py:count", "--input", '{"n": 1}', "--id", "count-1")

    answer = ergon(*typed.split(" "))

    assert answer.code == code
    assert answer.out == ""
    assert len(answer.err.strip().splitlines()) == 1, answer.err
    assert "Traceback" not in answer.err
    assert "hunter2" not in answer.err
    for word in words:
        assert word in answer.err


def test_a_file_may_have_a_name_like_a_user_with_a_password(ergon, here: Path) -> None:
    made = ergon("run", "shop.py:count", "--input", '{"n": 1}', "--log", "sqlite:u:p%40h.db")

    assert made.code == 0, made.err
    assert ergon("ls", "--log", "./u:p@h.db").code == 0


def test_a_step_is_not_taken_for_a_flow(ergon) -> None:
    answer = ergon("run", "shop.py:increase")

    assert answer.code == 2
    assert answer.err.startswith(
        "ergon: 'increase' in shop.py is a step, which runs in a flow. Name a flow: "
    )


def test_a_file_that_exits_when_imported_is_named(ergon, here: Path) -> None:
    (here / "exits.py").write_text("raise SystemExit(3)\n")

    by_file, by_name = ergon("worker", "exits.py"), ergon("run", "exits:f")

    assert (by_file.code, by_name.code) == (2, 2)
    assert "importing exits.py raised SystemExit: 3 (exits.py:1)" in by_file.err
    assert "importing exits raised SystemExit: 3 (exits.py:1)" in by_name.err


def test_a_file_that_starts_its_program_when_imported_is_told_the_guard(command, here: Path) -> None:
    (here / "program.py").write_text(
        "import asyncio\nfrom ergon import flow\n@flow\nasync def f() -> int:\n    return 1\n"
        "async def main() -> None: ...\nasyncio.run(main())\n"
    )
    process = command("run", "program.py:f")

    _out, said = process.communicate(timeout=30)

    assert process.returncode == 2
    assert said == (
        "ergon: importing program.py starts its program: it calls asyncio.run() (program.py:7). Put that call under "
        '`if __name__ == "__main__":`, so that flows in it can be imported\n'
    )


@pytest.mark.parametrize(
    "verb",
    [
        *("ls", "show x", "why x", "inbox x", "signal x y", "cancel x", "kill x", "pause x"),
        *("resume x", "retry x", "delete x", "workers", "doctor"),
    ],
)
def test_no_verb_but_run_and_worker_creates_a_log(ergon, here: Path, verb: str) -> None:
    """A mistyped path must not become an empty log that looks like lost work."""
    answer = ergon(*verb.split(" "), "--log", "typo.db")

    assert answer.code == 2
    assert "there is no log at" in answer.err
    assert "typo.db" in answer.err
    assert not (here / "typo.db").exists()


def test_an_unexpected_error_is_one_line_and_with_debug_a_traceback(ergon, here, monkeypatch) -> None:
    (here / "odd.py").write_text("from ergon import flow\n@flow\nasync def f() -> int:\n    return 1\n")
    monkeypatch.setattr("ergon.cli.run.bind", lambda *_: 1 // 0)

    answer = ergon("run", "odd.py:f")

    assert answer.code == 70
    assert answer.err.count("\n") == 1
    assert "mistake in Ergon" in answer.err

    monkeypatch.setenv("ERGON_DEBUG", "1")
    answer = ergon("run", "odd.py:f")

    assert answer.code == 70
    assert "ZeroDivisionError" in answer.err
    assert answer.err.startswith("Traceback")
    assert "mistake in Ergon" in answer.err.splitlines()[-1]


@pytest.mark.parametrize("verb", VERBS)
def test_a_verbs_help_shows_no_mark_of_the_formatter(verb: str, ergon) -> None:
    answer = ergon(verb, "--help")

    assert answer.code == 0
    assert "\\b" not in answer.out


def test_help_lists_every_verb_with_a_line_about_it(ergon) -> None:
    answer = ergon("--help")

    assert answer.code == 0
    for verb in VERBS:
        assert any(
            line.split()[:1] == [verb] and len(line.split()) > 2 for line in answer.out.splitlines()
        ), verb


def test_further_keyword_arguments_are_given_where_the_refusal_says(ergon) -> None:
    assert ergon("run", "shop.py:takes_more", "--input", '{"n": 1, "more": {"c": 4}}').out == "7\n"


def all_below(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(each for child in kind.__subclasses__() for each in all_below(child))]


@pytest.mark.parametrize(
    "kind", [each for each in all_below(StoreError) if each.__module__ == "ergon.errors"]
)
def test_an_error_of_the_log_is_bad_input_only_where_the_same_command_would_fail_again(
    kind: type[Exception],
) -> None:
    code, _ = sentence_of(kind.__new__(kind, "in the way"))

    assert code == (2 if kind in (LogRefused, LogTooNew, IllegalMove, FlowIdConflict) else 1)


def test_help_tells_each_exit_code_as_the_code_has_it(ergon) -> None:
    told = " ".join(ergon("--help").out.split())

    for ending in ENDINGS:
        assert f"{ending.code} {ending.meaning}" in told
