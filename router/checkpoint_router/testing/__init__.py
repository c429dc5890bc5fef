"""For tests of agents: a real router process, started, killed and started again.

    from checkpoint_router.testing import running_router

    with running_router() as router:
        saver = RouterSaver(router.target)

With pytest the fixtures `checkpoint_router` and `router_saver` are there without any import.
"""

from checkpoint_router.testing.process import RouterFailed, RunningRouter, running_router

__all__ = ["RouterFailed", "RunningRouter", "running_router"]
