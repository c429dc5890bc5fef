"""Beside the floors: what the system says about itself. Names once, no payload, no thread ids.

Only opentelemetry-api is needed: until `export` has configured an SDK nothing is recorded, and it
costs next to nothing. `logging` and `export` need what only the router process has.
"""
