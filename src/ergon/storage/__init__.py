"""The one seam between the engine and where flows are kept.

`log.py` is the contract. `sqlite/` keeps it on one file; other logs stand beside it and are strangers to it.
"""
