"""What the README prints can be typed: its program runs, its verbs and places exist."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ergon.cli.app import VERBS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


FLOWS, PROGRAM = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the README's files, and a shorter night."""
    flows = FLOWS.replace("asyncio.sleep(10)", "asyncio.sleep(1)")
    assert flows != FLOWS
    (tmp_path / "orders.py").write_text(flows, encoding="utf-8")
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    return tmp_path


def typed(folder: Path, *words: str) -> str:
    """What a command prints."""
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_command_runs_the_flow_and_typed_again_tells_its_result(folder: Path) -> None:
    (command,) = re.findall(r"^ergon (run orders.*)$", README, re.MULTILINE)

    for _ in range(2):
        assert typed(folder, "-m", "ergon", *shlex.split(command)) == '"payment for order-1, shipped"\n'


def test_the_program_runs_and_runs_again_beside_the_command(folder: Path) -> None:
    (command,) = re.findall(r"^ergon (run orders.*)$", README, re.MULTILINE)

    assert typed(folder, "-m", "ergon", *shlex.split(command)) == '"payment for order-1, shipped"\n'
    for _ in range(2):
        assert typed(folder, "program.py") == "payment for order-2, shipped\n"
    the_programs = shlex.split(command.replace("order-1", "order-2"))
    assert typed(folder, "-m", "ergon", *the_programs) == '"payment for order-2, shipped"\n'


def test_the_first_program_is_short() -> None:
    code = [line for line in FLOWS.splitlines() if line.strip() and not line.startswith("#")]

    assert len(code) <= 12


def test_every_verb_the_readme_names_exists() -> None:
    named = set(re.findall(r"^ergon (\w+)", README, re.MULTILINE)) | set(re.findall(r"`ergon (\w+)", README))

    assert named <= set(VERBS)


def test_every_place_the_readme_names_exists() -> None:
    places = re.findall(r"^\| `([\w/.]+)` \|", README, re.MULTILINE)

    assert places
    assert [place for place in places if not (ROOT / place).exists()] == []


def test_the_readme_says_how_to_install_the_package_that_is_built() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert f"`pip install .` in a checkout installs the package `{project['name']}`" in README
    assert list(project["scripts"]) == ["ergon"]
