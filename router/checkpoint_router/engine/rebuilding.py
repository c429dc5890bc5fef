"""Values that come without the bytes that the router has: rebuilt before they are stored.

Rules: a base is looked for in the thread's live generation only, so no value of another thread or
tenant can be asked about; a value is stored under the name that its bytes make. What cannot be
rebuilt is left out: the storage misses it, unless it has it, and the sender sends it whole.
"""

from collections.abc import Sequence

from checkpoint_router.core import limits
from checkpoint_router.core.answers import Growth, NewBlob
from checkpoint_router.core.errors import DataLoss
from checkpoint_router.core.growing import Named, named, rebuilt
from checkpoint_router.engine.threads import ThreadState
from checkpoint_router.storage.port import Storage


def size(blobs: Sequence[NewBlob | Growth]) -> int:
    """Bytes that `whole` will need, which did not come with them."""
    return sum([2 * b.keep + len(b.tail) for b in blobs if type(b) is Growth])


async def whole(
    storage: Storage, state: ThreadState, gen: int, blobs: Sequence[NewBlob | Growth]
) -> tuple[NewBlob, ...]:
    """`blobs`, each with all of its bytes; without those that cannot be rebuilt here."""
    out: list[NewBlob] = []
    room = limits.INLINE_BLOBS_BYTES_MAX
    for blob in blobs:
        if isinstance(blob, NewBlob):
            out.append(blob)
            continue
        size = blob.keep + len(blob.tail)
        # One value may be larger than all that rides in a put otherwise; further ones may not.
        if size > room and room < limits.INLINE_BLOBS_BYTES_MAX:
            continue
        room -= size
        base = await _base(storage, state, gen, blob.base)
        made = None if base is None else rebuilt(blob, base)
        if base is not None and made is not None:
            state.recent.keep(base, made)
            new = NewBlob(hash=made.hash, value=made.value, continues=base.hash, kept=blob.keep)
            out.append(new)
    return tuple(out)


async def _base(storage: Storage, state: ThreadState, gen: int, hash: bytes) -> Named | None:
    """A stored value of the thread."""
    history = state.history
    if history.gen != gen:
        return None
    known = state.recent.named(hash)
    if known is not None:
        return known
    values = state.recent.values((hash,))
    if values is None:
        try:
            read = await storage.blobs(history.thread, gen, (hash,), limits.BLOB_BYTES_MAX)
        except DataLoss:
            return None
        values = read.found
        if state.history is not history:
            return None
    return named(values[hash]) if hash in values else None
