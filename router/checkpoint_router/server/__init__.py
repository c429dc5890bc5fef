"""Floor 5b: the router process. The only floor that knows grpc's server, settings and signals.

`serve` puts everything together; `handlers` is the one table of calls, which unary methods and
the stream share; `admission` holds every limit on what comes in.
"""

import checkpoint_router.wire  # noqa: F401 - before gRPC, which it imports as it should be
