"""A program that reads, forks, and says whether each side finds the run of that read.

Run as `python -m tests.planted.forked [blind]`; `blind` plants the fault that nobody looks at
whose run it is. No link is opened, so that it is the sessions that must notice.
"""

import os
import sys
from types import SimpleNamespace

from checkpoint_router.client import sessions
from checkpoint_router.client.arguments import names_of
from checkpoint_router.client.cache import Cache
from checkpoint_router.core.answers import ThreadClock
from tests.saver.shapes import conf


def main(plant: str) -> None:
    if plant == "blind":
        everywhere_the_same = SimpleNamespace(getpid=lambda: 1, urandom=os.urandom)
        vars(sessions)["os"] = everywhere_the_same
    known = sessions.Sessions(Cache(0))
    clock = ThreadClock(gen=1, hlc=1, term=0, epoch=1)
    run = known.opened(names_of(conf("t")), b"token", clock)
    known.bind(run, "", "c")

    def finds() -> bool:
        names = (names_of(conf(thread, "", "c")) for thread in ("t", run.carrier()))
        found = [known.run_of_write(each) for each in names]
        return any(each is not None for each in found)

    print("parent", finds(), flush=True)
    child = os.fork()
    if child == 0:
        print("child", finds(), flush=True)
        os._exit(0)
    os.waitpid(child, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
