"""Performs what a flow asks for: revive it, run its steps, commit what it changes, settle it.

`run.py` is one flow in memory, from claim to letting go. `body.py` runs one step (timeout > retry > call) and is the
context its body sees. `settling.py` decides how a flow ends; `waits.py` says what it waits for. `executor.py` is the
public `Executor`, which runs one flow here and now; `ergon.worker` runs many.
"""
