"""Which process this is."""

from __future__ import annotations

import os

import pytest

from ergon.storage import process


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_a_fork_finds_out_anew_which_process_it_is():
    """Its pid may be that of an ancestor that is gone; with that one's mark it would be taken for dead."""
    process.this_process()
    told = process.this_process()
    reading, writing = os.pipe()

    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        try:
            os.write(
                writing, f"{process._process.cache_info().currsize} {process.this_process().pid}".encode()
            )
        finally:
            os._exit(0)
    os.waitpid(child, 0)

    assert os.read(reading, 100).decode() == f"0 {child}"
    assert told.pid == os.getpid()
    os.close(reading)
    os.close(writing)
