"""A thousand kills. `make torture`; ERGON_TORTURE_KILLS and ERGON_TORTURE_SEED choose others."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.crash.processes import ROOT


@pytest.mark.torture
@pytest.mark.timeout(7_200)
def test_a_thousand_kills_lose_and_double_nothing() -> None:
    kills = os.environ.get("ERGON_TORTURE_KILLS", "1000")
    seed = os.environ.get("ERGON_TORTURE_SEED", "1")

    code = subprocess.call(
        [sys.executable, "-m", "tests.torture", "--kills", kills, "--seed", seed], cwd=ROOT
    )

    assert code == 0
