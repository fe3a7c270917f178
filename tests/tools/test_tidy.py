"""Keep the tree tidy where ruff does not look; every failure says the rule's reason.

Each rule is a pure function from a path and its text to the complaints about it, so each is tested on its own
below. The rules are listed for people in CONTRIBUTING.md.
"""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
FOLDERS = (".ci", "benchmarks", "decisions", "docs", "examples", "src", "tests")
TEXT_SUFFIXES = {"", ".css", ".html", ".js", ".lock", ".lua", ".md", ".py", ".sql", ".toml", ".yml"}
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500

Rule = Callable[[Path, str], Iterator[str]]


def short_functions(path: Path, text: str) -> Iterator[str]:
    if not is_source(path):
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield (
                    f"line {node.lineno}: {node.name} has {lines} lines, over {FUNCTION_LINES_MAX}. A function "
                    "that does not fit on a screen mixes altitudes: give its parts names."
                )


def short_files(path: Path, text: str) -> Iterator[str]:
    lines = text.count("\n")
    if is_source(path) and lines > FILE_LINES_MAX:
        yield (
            f"{lines} lines, over {FILE_LINES_MAX}. One duty a file: a reader should find a duty by the file's "
            "name and hold all of it in mind. Move the second duty out."
        )


def no_leftovers(path: Path, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        if path != Path(__file__) and re.search(r"\b(TODO|FIXME|XXX)\b", line):
            yield f"line {number}: a leftover marker. Do it now, or keep it where work is planned, not in the code."


def no_machine_paths(path: Path, text: str) -> Iterator[str]:
    checkout = re.escape(str(ROOT)) if len(ROOT.parts) > 2 else r"(?!)"
    machine = re.compile(rf"{checkout}(?![\w-])|(?<![\w.~-])/(?:root|home/\w+|Users/\w+)/")
    for number, line in enumerate(text.splitlines(), 1):
        if path != Path(__file__) and machine.search(line):
            yield f"line {number}: a path of one machine, which exists on no other. Use a path relative to the file."


def no_addresses_in_locks(path: Path, text: str) -> Iterator[str]:
    is_lock = path.suffix == ".lock" or path.name in ("package-lock.json", "pylock.toml")
    if is_lock and "://" in text:
        yield "a lock file names an address. Hashes already say which file is meant; it must install from any index."


def no_code_from_data(path: Path, text: str) -> Iterator[str]:
    if not is_source(path) or "unsafe" in path.stem:  # a codec that is unsafe says so in its name
        return
    banned = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "eval", "exec", "__import__"}
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                used = {name.name.partition(".")[0] for name in names}
            case ast.ImportFrom(module=str(module), level=0):
                used = {module.partition(".")[0]}
            case ast.Call(func=ast.Name(id=name)):
                used = {name}
            case _:
                continue
        for name in sorted(used & banned):
            yield (
                f"line {node.lineno}: {name}. It runs whatever the data says, and an execution log is data that "
                "others can write. Decode by type with the codec; only a file with 'unsafe' in its name may do this."
            )


RULES: tuple[Rule, ...] = (
    short_functions,
    short_files,
    no_leftovers,
    no_machine_paths,
    no_addresses_in_locks,
    no_code_from_data,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_is_tidy(rule: Rule) -> None:
    complaints = [
        f"{path.relative_to(ROOT)}: {complaint}"
        for path in texts()
        for complaint in rule(path, path.read_text(encoding="utf-8"))
    ]

    assert not complaints, "\n".join(["", *complaints])


LONG_BODY = "    x = 1\n" * FUNCTION_LINES_MAX


@pytest.mark.parametrize(
    "rule,name,untidy,tidy",
    [
        (short_functions, "src/a.py", f"def f():\n{LONG_BODY}", f"def f():\n{LONG_BODY[10:]}"),
        (short_files, "src/a.py", "\n" * (FILE_LINES_MAX + 1), "\n" * FILE_LINES_MAX),
        (no_leftovers, "docs/a.md", "FIXME: later", "a fixme in a sentence"),
        (no_machine_paths, "docs/a.md", "see /home/ann/notes", "see docs/home/ann/notes and ~/.cache/"),
        (no_machine_paths, "docs/a.md", f"see {ROOT}/a", f"see {ROOT}ly/a"),
        (no_addresses_in_locks, "a.lock", "a @ https://example.org/a.whl", "a==1 --hash=sha256:00"),
        (no_code_from_data, "src/a.py", "from pickle import loads", "from .pickle import loads"),
        (no_code_from_data, "src/a.py", "eval('1')", "model.eval()"),
        (no_code_from_data, "src/a.py", "__import__('a')", "import importlib"),
    ],
)
def test_a_rule_sees_what_is_untidy_and_nothing_else(rule: Rule, name: str, untidy: str, tidy: str) -> None:
    """A rule that never complains would look the same as a tidy tree."""
    path = ROOT / name

    assert len(list(rule(path, untidy))) == 1
    assert list(rule(path, tidy)) == []


def is_source(path: Path) -> bool:
    return path.suffix == ".py" and path.is_relative_to(SRC)


def texts() -> Iterator[Path]:
    inside = (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")))
    for path in [*sorted(ROOT.iterdir()), *inside]:
        if path.is_file() and path.suffix in TEXT_SUFFIXES and "vendor" not in path.parts:
            yield path
