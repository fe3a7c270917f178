"""`ergon demo`: a durable flow indexes real files while its worker is killed again and again.

`flows.py` is the durable part and reads as an example. The rest is the stage: `files.py` and `ledger.py` touch the
file system, `home.py` keeps the demo's own files, `crew.py` starts and kills the worker, `play.py` tells the story,
`check.py` and `tally.py` prove what is claimed at the end, `screen.py` shows it.
"""
