"""Floor 5, in the agent's process: the saver, the runs it serves, and its links to routers."""

import os

# gRPC reads this once, while it is imported, and its default is on. Then it tries to repair itself
# in forked children, and where a loop's link was open that crashed 5 to 30 of 100 children, also
# those that never called. Off, as it was for most of gRPC's life, no child crashed; who set it,
# or imported gRPC before, keeps what they have. `links` refuses calls in such children either way.
_SETTING = "GRPC_ENABLE_FORK_SUPPORT"

if _SETTING in os.environ:
    import grpc
else:
    os.environ[_SETTING] = "0"
    try:
        import grpc  # noqa: F401 - imported now for what it reads from the environment
    finally:
        del os.environ[_SETTING]
