"""Temporary folders of tests, `tmp_path` too, lie in memory where there is room."""

from __future__ import annotations

import os

from tests.memory import memory

if (_folder := memory()) is not None:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_folder))
