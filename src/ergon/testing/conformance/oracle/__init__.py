"""A log in a few pages: what random sequences of operations are compared with.

`flows.py` has the state and what moves it, `model.py` what each call of `ExecutionLog` does. `sequences.py` makes
sequences and makes failing ones shorter, `values.py` says what they mean, `acting.py` does them to a log and to the
model, and `compare.py` compares the two.
"""
