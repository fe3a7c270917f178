"""One process to fork from for each pytest process, and a folder in memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.crashing import MODULES, Crasher
from tests.crash.processes import Zygote, scratch


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    with Zygote(MODULES) as started:
        yield started


@pytest.fixture
def crasher(zygote: Zygote, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Crasher]:
    """Runs cases; the files of a test that went wrong stay."""
    folder, failed = scratch(tmp_path), request.session.testsfailed
    yield Crasher(zygote, folder)
    if folder != tmp_path and request.session.testsfailed == failed:
        shutil.rmtree(folder)
