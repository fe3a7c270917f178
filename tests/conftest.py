"""What every test has in common."""

from __future__ import annotations

from hypothesis import settings

# A test is about behaviour: how long one example takes says how busy the machine is.
settings.register_profile("ergon", deadline=None)
settings.load_profile("ergon")
