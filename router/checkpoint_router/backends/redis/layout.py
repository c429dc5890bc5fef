"""What is stored under which key, and how rows are packed. The scripts know the same.

All keys of a thread have its slot as hash tag, which stands before any name, so a name with braces
in it changes nothing. Names have no NUL, which separates them. One group for each kind of data:

    inc, seq of the slot              s   hash: incarnation, writes so far
    what a thread keeps for ever      k   hash: generation, operations done
    counts                            c   hash: actor -> n, live, erased
    events                            e   hash: event -> place in the log and digest; gapless runs
    log                               l   list: flag, dot, index entry
    records                           p   hash: event -> names of its values, canonical bytes
    members                           j   hash: event -> checkpoint id, run
    rows, values                      b v hash: value -> (tag, head, keep, log); its bytes if whole
    append logs                       x   strings
    by leaf                           i   sorted set, of the slot
    by checkpoint id, by run, names   n r t   sorted sets, of the slot and tenant

Events and rows have a field without a name, whose value is long: without it a server packs them
tightly until they have hundreds of fields, and searches them from end to end for each.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from importlib import resources
from typing import Final

from checkpoint_router.core.ids import EventId, ThreadKey, leaf_of, slot_of
from checkpoint_router.storage.codec import seal_record

FORMAT: Final = b"1"
FORMAT_KEY: Final = "checkpoint-router:format"
SYSTEM_KEY: Final = "checkpoint-router:key"
_OF_THREAD: Final = "kcelpjbv"
_OF_TENANT: Final = "nrt"
NAMES: Final = -2
"""Among `keys`: one for each tenant in each slot."""


@lru_cache(maxsize=10_000)
def keys(thread: ThreadKey) -> tuple[bytes, ...]:
    """The keys of every script, in the order in which `keys.lua` names them."""
    tag = f"cr:{{{slot_of(thread.thread)}}}:"
    name = f"{thread.tenant}\0{thread.thread}"
    made = [f"{tag}s", *(f"{tag}{kind}:{name}" for kind in _OF_THREAD), f"{tag}i"]
    made += [f"{tag}{kind}:{thread.tenant}" for kind in _OF_TENANT]
    return tuple(key.encode() for key in (*made, f"{tag}x:{name}\0"))


def of_tenant(kind: str, slot: int, tenant: str) -> bytes:
    """The key of one of a tenant's sorted sets in a slot."""
    return f"cr:{{{slot}}}:{kind}:{tenant}".encode()


def slot_key(slot: int) -> bytes:
    """The key of a slot's own state."""
    return f"cr:{{{slot}}}:s".encode()


def by_leaf(slot: int) -> bytes:
    """The key of a slot's threads."""
    return f"cr:{{{slot}}}:i".encode()


def slots_key(tenant: str) -> bytes:
    """The key of the bits that say in which slots a tenant may have threads."""
    return f"checkpoint-router:slots:{tenant}".encode()


def leaf_member(leaf: int, tenant: str, thread: str) -> bytes:
    """A thread's place in its slot."""
    return leaf.to_bytes(2, "big") + f"{tenant}\0{thread}".encode()


def leaf_of_thread(thread: ThreadKey) -> bytes:
    """`leaf_member` of a thread."""
    return leaf_member(leaf_of(thread.thread), thread.tenant, thread.thread)


def event_field(id: EventId) -> bytes:
    """An event in a hash."""
    return id.segment + str(id.index).encode()


def run_hash(run: str) -> bytes:
    """A run in a sorted set: an id of any text, at one length."""
    return blake2b(run.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def pack_record(names: Sequence[bytes], packed: bytes) -> bytes:
    """A record with the names of its values in front, which `read.lua` follows."""
    return len(names).to_bytes(4, "big") + b"".join(names) + seal_record(packed)


def record_body(row: bytes) -> bytes:
    """The sealed bytes of a record."""
    return row[4 + 32 * int.from_bytes(row[:4], "big") :]


def script(name: str) -> str:
    """The text of one of the scripts."""
    folder = resources.files(__package__)
    return (folder / "keys.lua").read_text() + (folder / f"{name}.lua").read_text()
