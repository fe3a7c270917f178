"""Call a plain function off the event loop's own stack, so that only an `Exception` that a future can carry comes out.

Threads, other processes and steps inside steps all call by this one function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ergon.core.failure import awaitable
from ergon.errors import StepFailed
from ergon.replay.exits import ends_process


def call_plainly(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call it. Off the main thread no signal's handler exits, so a step that does fails, and the process goes on."""
    try:
        return function(*args, **kwargs)
    except StopIteration as error:  # the future would never be done, and its step never end
        raise awaitable(error) from error
    except SystemExit as error:
        raise step_exited(error) from None
    except KeyboardInterrupt as error:
        if ends_process(error):  # in a pool process, or in one that the step has made
            raise
        raise step_exited(error) from None
    except GeneratorExit as error:  # thrown into coroutines it ends the task that awaits the step
        raise StepFailed("GeneratorExit", str(error) or "raised by the step") from None


def step_exited(error: SystemExit | KeyboardInterrupt) -> StepFailed:
    """What the flow sees of a step that called `sys.exit`, or raised `KeyboardInterrupt` itself."""
    what = f"{error.code!r}" if isinstance(error, SystemExit) else str(error) or "raised by the step"
    return StepFailed(type(error).__name__, f"{what}; a step cannot end its process")
