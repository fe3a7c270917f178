"""Where servers and the many files of a suite lie: in memory where there is room.

No crash in a test cuts the power, so waiting for a disk would prove nothing and take a third of the time.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

_SHM: Final = Path("/dev/shm")
_BYTES_MIN: Final = 4 * 1024**3
"""A whole run takes up less than a quarter of this at any time; a container may have no more than 64 MiB in all."""


def memory() -> Path | None:
    """A folder of which all is kept in memory; None when there is none, or little room."""
    if not os.access(_SHM, os.W_OK) or shutil.disk_usage(_SHM).free < _BYTES_MIN:
        return None
    return _SHM
