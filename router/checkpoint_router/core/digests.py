"""Names by content: blobs, events, conflicts, copies. BLAKE2b throughout, keyed by purpose."""

from functools import lru_cache
from hashlib import blake2b
from typing import Final

from checkpoint_router.core.ids import EventId, SegmentId, ThreadKey

_BLOB: Final = b"blob"
_EVENT: Final = b"event"
_CONFLICT: Final = b"conflict"
_COPY: Final = b"copy"
_OPERATION: Final = b"operation"


def head_length(tag: str, value: bytes) -> int:
    """Bytes of the msgpack array header that `value` begins with, else 0.

    The count of a list stands in front of its bytes, so without this cut a list that grows would
    share no prefix with its older self.
    """
    if tag != "msgpack" or not value:
        return 0
    first = value[0]
    if 0x90 <= first <= 0x9F:
        return 1
    if first == 0xDC and len(value) >= 3:
        return 3
    if first == 0xDD and len(value) >= 5:
        return 5
    return 0


def blob_hash(tag: str, value: bytes) -> bytes:
    """32 bytes that name a value: over type, body, head, in that order.

    Body before head lets a hasher of a growing list be continued. The lengths of type and head
    are hashed too, since without them two values could share one stream of bytes.
    """
    cut = head_length(tag, value)
    body = memoryview(value)[cut:] if cut else value
    return blob_name(body_hasher(tag, body), value[:cut])


def body_hasher(tag: str, body: bytes | memoryview) -> "blake2b":
    """The hasher of a value's type and body: a copy of it goes on with the body of a longer one."""
    h = _tag_hasher(tag).copy()
    h.update(body)
    return h


@lru_cache(maxsize=64)
def _tag_hasher(tag: str) -> "blake2b":
    name = tag.encode("utf-8", "surrogatepass")
    return blake2b(len(name).to_bytes(4, "big") + name, digest_size=32, person=_BLOB)


def blob_name(hasher: "blake2b", head: bytes) -> bytes:
    """The name of the value with this head whose body `hasher` was given; uses the hasher up."""
    hasher.update(head + bytes((len(head),)))
    return hasher.digest()


def event_digest(packed: bytes) -> bytes:
    """32 bytes over the canonical bytes of an event (`records.pack_event`)."""
    return blake2b(packed, digest_size=32, person=_EVENT).digest()


def content_digest(packed: bytes) -> bytes:
    """16 bytes that tell two contents apart, whoever wrote them."""
    return blake2b(packed, digest_size=16, person=_EVENT).digest()


def conflict_id(thread: ThreadKey, gen: int, one: SegmentId, other: SegmentId) -> bytes:
    """16 bytes that every region derives alike for the conflict of two segments."""
    low, high = sorted((one, other))
    h = blake2b(digest_size=16, person=_CONFLICT)
    h.update(_scope(thread, gen))
    h.update(low)
    h.update(high)
    return h.digest()


def copied(copy: bytes, event: EventId) -> EventId:
    """The event that a copy makes of `event`: a repeated copy makes the same ones."""
    h = blake2b(copy + event.segment, digest_size=16, person=_COPY)
    return EventId(SegmentId(h.digest()), event.index)


def copy_id(source: ThreadKey, gen: int, target: ThreadKey, target_gen: int) -> bytes:
    """16 bytes that every copy from one generation to another has in common."""
    scopes = _scope(source, gen) + _scope(target, target_gen)
    return blake2b(scopes, digest_size=16, person=_COPY).digest()


def operation_id(request_id: bytes, thread: ThreadKey) -> bytes:
    """16 bytes: what one call over many threads does to one of them."""
    return blake2b(request_id + _scope(thread, 0), digest_size=16, person=_OPERATION).digest()


def thread_hash(thread: ThreadKey) -> bytes:
    """16 bytes that bind a token to its thread."""
    return blake2b(_scope(thread, 0), digest_size=16).digest()


def _scope(thread: ThreadKey, gen: int) -> bytes:
    tenant = thread.tenant.encode()
    return b"".join(
        (
            len(tenant).to_bytes(2, "big"),
            tenant,
            gen.to_bytes(8, "big"),
            len(thread.thread.encode()).to_bytes(2, "big"),
            thread.thread.encode(),
        )
    )
