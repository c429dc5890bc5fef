"""`python -m checkpoint_router.testing.child`: a router that ends with whoever started it.

Its standard input is a pipe on which nothing is ever written. However the process at the other end
ends, by SIGKILL too, the pipe ends with it. (Linux' parent-death signal would follow the worker
that started the router, and not its process.)
"""

import os
import signal
import sys
import threading

from checkpoint_router.server.__main__ import main


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(main())
