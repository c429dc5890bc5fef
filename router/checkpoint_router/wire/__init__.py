"""Floor 1: messages to core values and back, errors to statuses and back. Used by both sides.

Two verbs. `x_of(message)` reads a value out of a message and trusts nothing: sizes, ids, hash
lengths, indices and the kinds of a choice are checked against `core.limits`, and what is wrong is
refused with the field's name. `fill_x(message, value)` writes a value into a message that is in
its place already, because a message that is made first and put into another one is copied.
"""
