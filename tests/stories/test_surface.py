"""What `import ergon` and `from ergon import *` give."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ergon


def test_a_star_import_leaves_the_standard_modules_alone() -> None:
    program = "import random\nfrom ergon import *\nprint(random.Random(7).random(), flow, step)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "random" not in ergon.__all__
    assert not {"asyncio", "logging", "time", "uuid"} & set(ergon.__all__)


@pytest.mark.parametrize("name", [*ergon.__all__, "random"])
def test_every_public_name_can_be_imported_and_is_documented(name: str) -> None:
    found = getattr(ergon, name)

    assert name in dir(ergon)
    assert found.__doc__ or name == "Outcome"  # a union has none
