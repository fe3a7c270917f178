"""What users write: flows, steps, waits, children, DAGs, stable values.

Nothing here touches a log. Inside a flow these functions ask the flow's machine (`ergon.replay`); inside a step
they ask the step's context, which the executor provides. `context.py` tells which of the two it is.
"""
