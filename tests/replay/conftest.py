"""What the running Python is too old for."""

import sys

collect_ignore = ["test_eager_tasks.py"] if sys.version_info < (3, 12) else []
