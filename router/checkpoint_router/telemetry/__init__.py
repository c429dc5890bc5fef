"""Beside the floors: what the system says about itself. Names once, no payload, no thread ids.

Only opentelemetry-api is needed: without a configured SDK nothing is recorded, and it costs next
to nothing. `logging` needs structlog, which only the router process has.
"""
