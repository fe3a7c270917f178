"""What the guides print runs as it stands, their links lead somewhere, and every example is reached from them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ergon.cli.app import VERBS

ROOT = Path(__file__).resolve().parents[2]
GUIDES = sorted((ROOT / "docs").glob("*.md"))
names = pytest.mark.parametrize("guide", GUIDES, ids=[path.stem for path in GUIDES])


@names
def test_every_program_of_a_guide_runs(guide: Path, tmp_path: Path) -> None:
    """One after the other in one folder: a later one may use the log of an earlier one."""
    for number, program in enumerate(blocks(guide, "python")):
        file = tmp_path / f"program_{number}.py"
        file.write_text(program, encoding="utf-8")

        done = subprocess.run(
            [sys.executable, file], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
        )

        assert (done.returncode, done.stderr) == (0, ""), program


@names
def test_a_guide_has_no_other_kind_of_block_and_names_verbs_that_exist(guide: Path) -> None:
    kinds = re.findall(r"^```(\w+)$", guide.read_text(encoding="utf-8"), re.MULTILINE)
    verbs = re.findall(r"\bergon (\w+)", "\n".join(blocks(guide, "sh"))) + re.findall(
        r"`ergon (\w+)", guide.read_text(encoding="utf-8")
    )

    assert set(kinds) <= {"python", "sh"}
    assert set(verbs) <= set(VERBS)


@names
def test_the_links_of_a_guide_lead_somewhere(guide: Path) -> None:
    for link in links(guide):
        assert (guide.parent / link).exists(), link


def test_every_example_is_reached_from_a_guide() -> None:
    reached = {(guide.parent / link).resolve() for guide in GUIDES for link in links(guide)}

    assert set((ROOT / "examples").glob("*.py")) <= reached


def test_each_decision_is_in_the_list_of_decisions_under_its_own_title() -> None:
    folder = ROOT / "decisions"
    listed = re.findall(
        r"^\| \[(\d{4})\]\(([^)]+)\) \| (.+?) \| ", (folder / "README.md").read_text("utf-8"), re.MULTILINE
    )
    written = [
        (path.name[:4], path.name, path.read_text("utf-8").partition("\n")[0].partition(": ")[2])
        for path in sorted(folder.glob("[0-9]*.md"))
    ]

    assert listed == written


def blocks(guide: Path, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)


def links(guide: Path) -> list[str]:
    return re.findall(r"\]\(([^)#:]+)\)", guide.read_text(encoding="utf-8"))
