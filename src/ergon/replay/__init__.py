"""The deterministic flow loop: history in, commands out. No store, no wall clock, no threads.

`machine.py` is the way in: it owns one flow's loop, feeds it recorded events one at a time and collects what the
flow asks for. `loop.py` is the asyncio event loop that flow code sees; `tasks.py` its tasks and futures;
`mailbox.py` the signals it can wait for; `ordering.py` keeps asyncio's own sets in a repeatable order.
"""
