"""Values and pure rules. No await, no I/O, no clock: everything here is decided by its arguments."""
