"""Floor 0: values and decisions, without time, chance or input and output.

Nothing here awaits, reads a clock, draws a random number, logs or opens anything: `now` and
randomness are arguments. Every rule of the system can therefore be driven by a property test.
"""
