"""What the README prints can be typed: its program runs, its verbs and places exist."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from ergon.cli.app import VERBS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_program_in_the_readme_runs_and_runs_again(tmp_path: Path) -> None:
    programs = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert programs

    for program in programs:
        (tmp_path / "program.py").write_text(program, encoding="utf-8")
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "program.py"],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=50,
                check=False,
            )
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout == "payment for order-1, shipped\n"


def test_the_flow_of_the_first_program_runs_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(README.split("```python\n")[1].split("```")[0], encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-m", "ergon", "run", "program.py:process", "--input", '{"order": "order-2"}'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, '"payment for order-2, shipped"\n'), done.stderr


def test_the_first_program_is_short() -> None:
    program = README.split("```python\n")[1].split("```")[0]

    assert len([line for line in program.splitlines() if line.strip()]) <= 14


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
