"""Proof by many random programs that a replay sees what the first run saw.

`programs.py` makes a random program: a tree of plain asyncio. `play.py` runs it inside a flow and writes down
everything it observes. `host.py` drives the flow's machine as an executor would, with a seeded choice of what
happens next, and records the history. `check.py` revives the flow from every prefix of that history and compares.

    python -m tests.replay_proof --programs 1000
"""
