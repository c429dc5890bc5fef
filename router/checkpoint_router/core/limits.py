"""Every limit of the system, with its reason.

Owner: this file. A limit that only one side checks is no limit: the client refuses early, with
the caller's names in the message, and the router refuses again because it trusts no client.
"""

from typing import Final

KIB: Final = 1024
"""Bytes in a kibibyte; larger units are multiples of it."""

MIB: Final = 1024 * KIB
"""Bytes in a mebibyte."""

ID_BYTES_MAX: Final = 1024
"""UTF-8 bytes of a thread, namespace, checkpoint, task or channel name. Larger: index rows stop
being small. Smaller: deeply nested namespaces (`node:task|node:task|…`) would not fit."""

TENANT_BYTES_MAX: Final = 128
"""UTF-8 bytes of a tenant name. It is part of every key."""

TASK_PATH_BYTES_MAX: Final = 4 * KIB
"""UTF-8 bytes of a task path, which grows with nesting."""

INLINE_BYTES_MAX: Final = 4 * KIB
"""A value up to this size may stand in its record instead of in a blob. Larger: a read of the
record pays for values that it does not want. Smaller: each trifle costs a row."""

BLOB_BYTES_MAX: Final = 16 * MIB
"""One value. Larger: one call holds up the others of its link, and an engine that copies values
blocks everybody. Smaller: documents kept in a state would not fit."""

BODY_BYTES_MAX: Final = 2 * MIB
"""A checkpoint without its channel values and versions (mostly `versions_seen`)."""

METADATA_BYTES_MAX: Final = 1 * MIB
"""All metadata of one checkpoint. It is read by every filtered listing."""

MANIFEST_ENTRIES_MAX: Final = 10_000
"""Channels of one checkpoint."""

WRITE_ROWS_MAX: Final = 10_000
"""Rows of one `put_writes` call, and of those that are stored together."""

WRITE_TASKS_MAX: Final = 256
"""Calls of `put_writes` that are stored together. Larger: a graph of that many parallel tasks has
fewer events. Smaller: what one event holds is less."""

WRITE_SET_BYTES_MAX: Final = 256 * KIB
"""Their values, unless one call has more by itself. Larger: one message and one transaction carry
more, and keep others waiting for longer."""

INLINE_BLOBS_BYTES_MAX: Final = 4 * MIB
"""Blobs that ride in one put or one answer. The rest goes before it, or is fetched after it, in
calls of their own, so that no message needs more than one blob and this."""

MESSAGE_BYTES_MAX: Final = 24 * MIB
"""One gRPC message, either way."""

PAGE_TUPLES_MAX: Final = 100
"""Tuples of one page of a listing. A client asks again for the rest."""

IDS_PER_CALL_MAX: Final = 10_000
"""Thread or run ids in one call of `prune` or `delete_for_runs`."""

BLOBS_PER_CALL_MAX: Final = 20_000
"""Blob hashes in one call."""

HELD_MAX: Final = 256
"""Values that a read says it has. More: a read's question would be larger than its answer."""

CACHE_BYTES_DEFAULT: Final = 64 * MIB
"""Values that a saver keeps in its process, so that it need not fetch them again."""

FILTERS_MAX: Final = 256
"""Metadata conditions of one listing, and channels of one delta history."""

CURSOR_BYTES_MAX: Final = 8 * KIB
"""The place where the next page begins: a few ids."""

REQUEST_ID_BYTES_MAX: Final = 64
"""What names one call of a mutation. 16 random bytes are enough."""

TYPE_BYTES_MAX: Final = 256
"""A serialiser's tag for a value, such as `msgpack+aes`."""

INTEGER_MAX: Final = 2**63 - 1
"""Generations, terms and stamps: storages keep them in signed 64 bits."""

FRONTIER_ENTRIES_MAX: Final = 256
"""Segments that a read may name as seen. One in sequential use, up to eight under heavy
concurrency; beyond the limit the reader reads again."""

RANGES_MAX: Final = 64
"""Index ranges of what a call names of its own segment as acknowledged; a client with more gaps
names the first ones."""

SEEN_RANGES_MAX: Final = FRONTIER_ENTRIES_MAX * RANGES_MAX
"""Index ranges of all that a read names as seen. A gap in a segment is a call that was never
stored, and stays for ever, so one segment may have many."""

GIVEN_UP_MAX: Final = 256
"""Calls that one header may give up."""

TOKEN_BYTES_MAX: Final = 512 * KIB
"""The read part of a causal token, at the limits above."""

INDEX_MAX: Final = 2**32
"""Events of one segment. A run makes thousands at the most."""

HLC_DRIFT_MS_MAX: Final = 500
"""How far a client's stamp may be ahead of the thread's clock before its call waits. Larger: one
bad clock drags a thread into the future. Smaller: healthy hosts wait for each other."""

DEADLINE_SECONDS_DEFAULT: Final = 30.0
"""How long a saver's call tries, reconnecting as often as it must."""

DEADLINE_SECONDS_MAX: Final = 600.0
"""How long a router works on one call at the most, whatever the client asked."""

STALE_WAIT_SECONDS_MAX: Final = 1.0
"""How long a call waits for events that it names and the router does not know yet."""

CALLS_PER_STREAM_MAX: Final = 256
"""Calls of one stream under way at once; beyond it the router stops reading the stream, and the
transport's flow control slows the client down."""

STREAMS_PER_TENANT_MAX: Final = 1024
"""Streams that one tenant may hold open. Each costs a few kilobytes."""

STREAMS_MAX: Final = 8192
"""Streams that one router holds open in all."""

BYTES_IN_FLIGHT_MAX: Final = 256 * MIB
"""Request bytes a router works on at once, and, counted apart, bytes of answers that wait to be
read; beyond it a call is refused with a hint to retry."""

REBUILT_BYTES_MAX: Final = 64 * MIB
"""Bytes of values that puts at work at once may have rebuilt from what they continue; further puts
send theirs whole, and count as such. Larger: small requests could fill the memory."""

STREAM_ANSWER_BYTES_MAX: Final = 8 * MIB
"""Answers of one stream that wait to be read by the client; beyond it the router stops reading
the stream and starts no more reads for it."""

STREAM_STALL_SECONDS_MAX: Final = 60.0
"""How long a client may leave an answer unread before its stream is ended. Shorter: a paused
agent loses its stream for nothing. Longer: its answers stay in memory, if nobody needs it."""

STALL_UNDER_PRESSURE: Final = 1 / 12
"""The part of it after which the connection is ended where others need the memory. Less: a slow
line loses its answer. More: who reads waits for who does not."""

LARGE_ANSWERS_MAX: Final = 128
"""Calls at work at once whose answer may be as large as a message."""

LARGE_ANSWERS_PER_STREAM_MAX: Final = 8
"""Those of one stream: one that asks for much must not take everybody's places."""

CALL_BYTES: Final = 16 * KIB
"""What a call counts for beside its request bytes: many small calls are work too."""

FRAME_CALLS_MAX: Final = 64
"""Calls that ride in one frame of a stream."""

FRAME_CANCELLED_MAX: Final = 1024
"""Cancelled calls that one frame names."""

FRAME_BYTES_MAX: Final = 2 * MIB
"""A frame is closed when it is larger than this; one larger call rides alone."""

GROUP_PUTS_MAX: Final = 32
"""Puts that share one storage transaction."""

GROUP_BYTES_MAX: Final = 1 * MIB
"""Bytes that share one storage transaction."""

HISTORY_EVENTS_MAX: Final = 60_000
"""Events whose index entries a router keeps in memory, over all threads (about 1 KB each).
Threads that were not used lately are dropped and read again when they are."""

RECENT_THREAD_BYTES_MAX: Final = 4 * MIB
"""Records and values of one thread that a router keeps in memory for the next read of it."""

RECENT_BYTES_MAX: Final = 32 * MIB
"""The same over all threads. Larger: a router at rest holds what nobody asks for. Smaller: busy
threads push each other out between two of their calls."""

COUNTERS_MAX: Final = 100_000
"""Threads whose dot counters an actor remembers before it is closed for a new one."""

SESSIONS_MAX: Final = 10_000
"""Tokens that a saver remembers. Losing one costs a read."""

SLOTS: Final = 4096
"""Units of placement. A power of two, so that a slot is a few bits of a hash."""

LOG_BYTES_MIN: Final = 1 * KIB
"""A value smaller than this is stored whole; it is not worth an append log."""

LOG_BYTES_MAX: Final = 16 * MIB
"""An append log; a value that would outgrow it starts another."""

LOG_SEGMENTS_MAX: Final = 16
"""Segment rows of a log that may gather before they are merged into one."""

LOG_SEGMENT_BYTES_MAX: Final = 256 * KIB
"""A merged segment row. Larger: a put that happens to merge rewrites megabytes. Smaller: a long
value is read from many rows."""

LOG_DEPTH_MAX: Final = 4
"""Parents above a log. A read walks them all; beyond, a fork of a fork is copied whole."""

assert INLINE_BYTES_MAX < LOG_BYTES_MAX
assert (
    BLOB_BYTES_MAX + INLINE_BLOBS_BYTES_MAX + BODY_BYTES_MAX + METADATA_BYTES_MAX
    < MESSAGE_BYTES_MAX
)
assert FRAME_BYTES_MAX <= MESSAGE_BYTES_MAX
assert LOG_BYTES_MAX >= BLOB_BYTES_MAX
assert LOG_SEGMENT_BYTES_MAX <= LOG_BYTES_MAX
assert SLOTS & (SLOTS - 1) == 0
