"""Floor 5, in the agent's process: the saver, the runs it serves, and its links to routers."""

import checkpoint_router.wire  # noqa: F401 - before gRPC, which it imports as it should be
