"""What calls ask of Cassandra, which of them share it, and how requests leave the router's loop."""

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from checkpoint_router.backends.cassandra import CassandraStorage, link, listings
from checkpoint_router.backends.cassandra.link import Home, Link, links_at
from checkpoint_router.backends.cassandra.session import Change
from checkpoint_router.backends.cassandra.statements import Name
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.storage.port import Append, Stored
from tests import builders as b
from tests.unit.test_cassandra_shared import one, two, url

__all__ = ["one", "two", "url"]  # fixtures

SOON_SECONDS = 10.0


@pytest.fixture
def asked(one: CassandraStorage, monkeypatch: pytest.MonkeyPatch) -> Counter[Name]:
    """Requests of the first router, by their first statement."""
    counter: Counter[Name] = Counter()
    session = one._parts.session
    read, together, condition = session.read, session.together, session.condition

    def reads(name: Name, *values: Any) -> Any:
        counter[name] += 1
        return read(name, *values)

    def writes(changes: Iterable[Change]) -> Any:
        rows = list(changes)
        counter[rows[0][0]] += 1
        return together(rows)

    def conditions(*changes: Change) -> Any:
        counter[changes[0][0]] += 1
        return condition(*changes)

    monkeypatch.setattr(session, "read", reads)
    monkeypatch.setattr(session, "together", writes)
    monkeypatch.setattr(session, "condition", conditions)
    return counter


def checkpoint(number: int, thread: ThreadKey = b.THREAD) -> Append:
    head = b.header(b.token(thread)) if number == 1 else None
    blobs = [b.new_blob(f"{number} {channel}" * 99) for channel in range(3)]
    id = f"c00000-{number}"
    event = b.checkpoint_event("s", number, checkpoint_id=id, blobs=blobs, head=head)
    return b.append(event, thread=thread, blobs=blobs)


def writes(number: int) -> Append:
    return b.append(b.writes_event("s", number, task_id=f"task {number}"))


async def put(storage: CassandraStorage, *appends: Append) -> None:
    for answer in await asyncio.gather(*map(storage.append, appends)):
        assert isinstance(answer, Stored), answer


async def test_a_put_asks_for_one_batch_and_a_line_and_then_one_look_at_the_fence(
    one: CassandraStorage, asked: Counter[Name]
) -> None:
    await put(one, checkpoint(1))
    asked.clear()
    await put(one, checkpoint(2))
    assert asked == {Name.PUT_COUNT: 1, Name.LIST_PUT: 1, Name.FENCE: 1}
    asked.clear()
    await put(one, writes(3))
    assert asked == {Name.PUT_COUNT: 1, Name.FENCE: 1}


async def test_a_thread_is_listed_with_one_request(
    one: CassandraStorage, asked: Counter[Name]
) -> None:
    await put(one, checkpoint(1))
    asked.clear()
    await put(one, checkpoint(1, ThreadKey("acme", "another")))
    assert asked[Name.LIST_PUT] == asked[Name.PUT_COUNT] == asked[Name.FENCE] == 1


async def test_writes_of_many_tasks_at_once_are_one_batch(
    one: CassandraStorage, two: CassandraStorage, asked: Counter[Name]
) -> None:
    await put(one, checkpoint(1))
    asked.clear()
    await put(one, *(writes(number) for number in range(2, 102)))
    assert asked == {Name.PUT_COUNT: 1, Name.FENCE: 1}
    assert len((await two.image(b.THREAD)).entries) == 101


async def test_puts_of_many_threads_at_once_share_their_lines_and_the_look_at_the_fence(
    one: CassandraStorage, asked: Counter[Name]
) -> None:
    threads = [ThreadKey("acme", f"t{number}") for number in range(32)]
    await put(one, *(checkpoint(1, thread) for thread in threads))
    asked.clear()
    await put(one, *(checkpoint(2, thread) for thread in threads))
    assert asked[Name.PUT_COUNT] == 32
    assert asked[Name.LIST_PUT] <= 2
    assert asked[Name.FENCE] < 16


async def test_a_second_look_at_a_thread_asks_for_two_rows(
    one: CassandraStorage, asked: Counter[Name]
) -> None:
    await put(one, checkpoint(1))
    known = (await one.image(b.THREAD)).known
    asked.clear()
    assert (await one.image(b.THREAD, known)).entries == ()
    assert asked == {Name.STATE: 1, Name.COUNTS: 1}


def test_a_request_has_as_many_parts_of_lists_as_cassandra_takes_without_a_word() -> None:
    parts = [[("acme", f"s{number}", "k", "", "")] * 3 for number in range(25)]
    parts.append([("acme", "c", "x" * 9_000, "", "")])
    parts.append([("acme", "t", "x", "", "")])
    found = listings._requests(parts)
    assert [line for lines in found for line in lines] == [line for part in parts for line in part]
    sizes = [len({line[1] for line in lines}) for lines in found]
    assert sizes == [10, 10, 5, 1, 1]


# The loop ------------------------------------------------------------------------------------


def sender_and_far(kind: socket.SocketKind) -> tuple[Any, socket.socket]:
    """A connection that stands on one end of a pair of sockets, and the other end."""
    near, far = socket.socketpair(type=kind)
    near.setblocking(False)
    far.setblocking(False)
    sender: Any = Link.__new__(links_at(Home()))
    sender.is_closed, sender._socket, sender._unsent = False, near, bytearray()
    sender._blocked, sender._number = False, near.fileno()
    return sender, far


async def test_requests_of_one_turn_of_the_loop_leave_together() -> None:
    sender, far = sender_and_far(socket.SOCK_DGRAM)  # Each send is a packet of its own.
    for piece in (b"one", b"two"):
        sender._send(piece)
    with pytest.raises(BlockingIOError):
        far.recv(10)
    await asyncio.sleep(0)  # one turn
    assert far.recv(10) == b"onetwo"
    sender._send(b"x" * link.FLUSH_BYTES)
    assert far.recv(1 << 20) == b"x" * link.FLUSH_BYTES
    sender._socket.close()
    far.close()


async def test_what_does_not_fit_into_a_socket_is_sent_later_and_in_order() -> None:
    """A member that reads slowly."""
    sender, far = sender_and_far(socket.SOCK_STREAM)
    pieces = [os.urandom(size) for size in (1 << 22, 100, 1 << 20)]
    loop, got = asyncio.get_running_loop(), bytearray()
    for piece in pieces:
        sender._send(piece)
        assert sender._unsent, "all of it went at once: the test shows nothing"
        got += far.recv(1 << 16)  # There is room again, before the loop knows.
    async with asyncio.timeout(SOON_SECONDS):
        while len(got) < sum(map(len, pieces)):
            got += await loop.sock_recv(far, 1 << 20)
    assert got == b"".join(pieces)
    assert not loop.remove_writer(sender._number), "it goes on looking whether it may send"
    sender._socket.close()
    far.close()


async def test_a_timer_is_kept_unless_it_is_taken_back_from_whatever_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "TICK_SECONDS", 0.001)
    home, fired = Home(), list[str]()
    gone = [home.later(0.002, lambda: fired.append("taken back")) for _ in range(2)]
    home.later(60.0, lambda: fired.append("too early"))
    gone[0].cancel()
    await asyncio.to_thread(gone[1].cancel)
    done = asyncio.Event()
    await asyncio.to_thread(home.later, 0.002, done.set)
    async with asyncio.timeout(SOON_SECONDS):
        await done.wait()
    assert fired == []
