"""asyncio's own functions, as a module holds them that was imported before Ergon."""

from asyncio import as_completed, wait_for

__all__ = ["as_completed", "wait_for"]
