"""The way in: start flows, talk to them, look at them, manage them. Registers no code and executes none.

`scheduler.py` is the public `Scheduler`, `handle.py` what it returns, `watching.py` how a result is waited for,
`why.py` the one sentence that says what a flow waits for.
"""
