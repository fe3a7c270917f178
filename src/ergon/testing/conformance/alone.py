"""The behaviours that need one handle only, for a log that lives and ends with it.

from ergon.testing.conformance.alone import *
"""

from ergon.testing.conformance.suite import ALONE, for_pytest

_tests = for_pytest(ALONE)
globals().update(_tests)
__all__ = sorted(_tests)  # noqa: PLE0605 # pyright: ignore[reportUnsupportedDunderAll] - they are found, not listed
