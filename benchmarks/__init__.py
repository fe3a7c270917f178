"""Measure Ergon beside the bare driver it stands on and beside its rivals, in one run.

Each workload is one file (`w1_sequential.py` ...): what Ergon does, what the floor does, and which figures are
compared. A side of a workload runs in a process of its own (`child.py`), rounds take the sides in turn
(`measure.py`), and the medians become tables (`report.py`). Rivals live in environments of their own under
`.bench/` (`venvs.py`, `rivals/`).
"""
