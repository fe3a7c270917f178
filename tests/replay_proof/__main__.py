"""`python -m tests.replay_proof`: see the package."""

from __future__ import annotations

import sys

from tests.replay_proof.proof import main

sys.exit(main(sys.argv[1:]))
