"""What every execution log does, as tests that the author of one can run.

A test module with a fixture `store` (see `Store`) and one line runs all of them:

    from ergon.testing.conformance import *

Each behaviour is a function whose name says it; they are in the files of this package, by subject. They are async
functions for pytest with pytest-asyncio: `pip install "ergon[testing]"`. The guide is `docs/writing-a-log.md`.
"""

try:
    from ergon.testing.conformance.suite import ALONE, SHARED, for_pytest
except ModuleNotFoundError as error:
    if error.name not in ("pytest", "pytest_asyncio"):
        raise
    raise ModuleNotFoundError(
        f"the conformance suite runs on pytest: pip install 'ergon[testing]' ({error})", name=error.name
    ) from error
from ergon.testing.conformance.store import Store as Store

_tests = for_pytest((*ALONE, *SHARED))
globals().update(_tests)
__all__ = sorted(_tests)  # noqa: PLE0605 # pyright: ignore[reportUnsupportedDunderAll] - they are found, not listed
