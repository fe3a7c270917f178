"""The long-running process: claim, keep the lease, reap, evict, drain. One duty a file.

`worker.py` is the public `Worker`; it puts the others together. `residents.py` holds the flows in memory,
`claimer.py` brings them in, `registry.py` knows the code, `service.py` repeats what is to be done again and again.
"""
