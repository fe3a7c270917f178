"""Run one side of one workload: `python -m benchmarks.child MODULE:FUNCTION '{"folder": ...}'` prints its figures."""

from __future__ import annotations

import importlib
import json
import sys


def main() -> None:
    """Call the function with the parameters; the last line of output is the result as JSON."""
    module, _, function = sys.argv[1].partition(":")
    result = getattr(importlib.import_module(module), function)(json.loads(sys.argv[2]))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
