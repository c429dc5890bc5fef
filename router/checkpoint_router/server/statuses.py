"""How an RPC ends with an error: rich status in its trailers."""

from typing import Final, Never

import grpc

from checkpoint_router.core.errors import RouterError
from checkpoint_router.wire.errors import code_of
from checkpoint_router.wire.status import status_of

Context = grpc.aio.ServicerContext[bytes, bytes]

DETAILS_KEY: Final = "grpc-status-details-bin"


async def abort(context: Context, error: RouterError) -> Never:
    """Ends the RPC with `error` as its status. Never returns."""
    status = status_of(error)
    details = ((DETAILS_KEY, status.SerializeToString()),)
    await context.abort(code_of(error), status.message, details)
    raise AssertionError("abort returned")
