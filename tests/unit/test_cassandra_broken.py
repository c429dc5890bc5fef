"""A Cassandra that is not as it should be: its keyspace, its tables, its rows.

The damage is done through a connection of the test's own.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from importlib import resources
from typing import Any

import pytest
from cassandra.cluster import Cluster

from checkpoint_router.backends.cassandra import CassandraStorage, schema, values
from checkpoint_router.backends.cassandra.statements import BLOB, LOG, RECORD, SEGMENT
from checkpoint_router.core.errors import DataLoss, Refused, Unavailable
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.server.diagnose import check, diagnose
from checkpoint_router.storage.open import storage_from_url
from checkpoint_router.storage.port import Append, Stored
from tests import builders as b
from tests.contract import servers

OTHER = ThreadKey("acme", "t2")

Run = Callable[..., list[Any]]


@pytest.fixture
def url() -> str:
    """Of an empty keyspace."""
    return servers.cassandra("broken")


@pytest.fixture
def run(url: str) -> Iterator[Run]:
    """Runs a statement of the test's own; `KS` stands for the keyspace, `ROWS` for the rows of the
    broken thread."""
    address, _, rest = url.partition("//")[2].partition("/")
    host, _, port = address.partition(":")
    cluster = Cluster([host], port=int(port), protocol_version=5)
    session = cluster.connect()
    keyspace = rest.partition("?")[0]

    def run(text: str, *values: Any) -> list[Any]:
        whole = text.replace("ROWS", _ROWS).replace("KS", keyspace)
        return list(session.execute(whole, values, timeout=60.0))

    yield run
    cluster.shutdown()


async def opened(url: str) -> CassandraStorage:
    storage = storage_from_url(url)
    assert isinstance(storage, CassandraStorage)
    await storage.open()
    return storage


@pytest.fixture
async def storage(url: str) -> AsyncIterator[CassandraStorage]:
    """With one thread that is to be broken, and one beside it."""
    storage = await opened(url)
    for thread in (b.THREAD, OTHER):
        assert isinstance(await storage.append(checkpoint(thread)), Stored)
    yield storage
    await storage.close()


LARGE = b.new_blob(b"\xdd" + bytes(4) + b"x" * 3 * values.PIECE_BYTES)


def checkpoint(thread: ThreadKey) -> Append:
    event = b.checkpoint_event("s", 1, checkpoint_id="c1", blobs=[LARGE], head=b.header())
    return b.append(event, thread=thread, blobs=[LARGE])


EVENT = checkpoint(b.THREAD).entry.id
_ROWS = "WHERE tenant = 'acme' AND thread = 't1' AND gen = 1 AND kind"


async def others_are_whole(storage: CassandraStorage) -> None:
    append = checkpoint(OTHER)
    read = await storage.records(OTHER, 1, [append.entry.id], 1 << 30)
    assert read.events == {append.entry.id: append.packed}
    assert read.blobs.found == {LARGE.hash: LARGE.value}


async def test_a_large_value_stands_in_pieces_and_is_read_whole(
    storage: CassandraStorage, run: Run
) -> None:
    rows = run("SELECT n, size FROM KS.thread ROWS = %s", BLOB)
    assert [(n, size) for n, size in rows] == [(n, len(LARGE.value.data)) for n in range(4)]
    read = await storage.blobs(b.THREAD, 1, [LARGE.hash], 0)
    assert read.found == {LARGE.hash: LARGE.value}


async def test_a_value_that_lacks_a_piece_is_named(storage: CassandraStorage, run: Run) -> None:
    ((writer,), *_) = run("SELECT a FROM KS.thread ROWS = %s", BLOB)
    gone = "DELETE FROM KS.thread ROWS = %s AND key = %s AND n = 2 AND a = %s"
    run(gone, BLOB, LARGE.hash, writer)
    with pytest.raises(DataLoss, match=rf"value {LARGE.hash.hex()[:16]}.* of thread 't1'"):
        await storage.blobs(b.THREAD, 1, [LARGE.hash], 1 << 30)
    await others_are_whole(storage)


GROWN = b.new_blob(LARGE.value.data + b"y" * 2000, continues=LARGE)
TALLER = b.new_blob(GROWN.value.data + b"z" * 2000, continues=GROWN)


async def grow(storage: CassandraStorage) -> None:
    """The large value goes on in an append log, in two checkpoints more."""
    event = b.checkpoint_event("s", 2, checkpoint_id="c2", blobs=[GROWN])
    assert isinstance(await storage.append(b.append(event, blobs=[GROWN])), Stored)
    third = b.checkpoint_event("s", 3, checkpoint_id="c3", blobs=[TALLER])
    assert isinstance(await storage.append(b.append(third, blobs=[TALLER])), Stored)


@pytest.mark.parametrize("piece", [0, -1])
async def test_a_value_that_lacks_bytes_of_its_log_is_named(
    storage: CassandraStorage, run: Run, piece: int
) -> None:
    await grow(storage)
    rows = run("SELECT key, n FROM KS.thread ROWS = %s", SEGMENT)
    assert len(rows) == 5  # a copy of the large value in 4 pieces with its first growth, and more
    run("DELETE FROM KS.thread ROWS = %s AND key = %s AND n = %s", SEGMENT, *rows[piece])
    with pytest.raises(DataLoss, match=rf"value {TALLER.hash.hex()[:16]}.* of thread 't1'"):
        await storage.blobs(b.THREAD, 1, [TALLER.hash], 1 << 30)
    whole = [LARGE, GROWN] if piece else [LARGE]
    read = await storage.blobs(b.THREAD, 1, [x.hash for x in whole], 1 << 30)
    assert read.found == {x.hash: x.value for x in whole}
    await others_are_whole(storage)


async def test_a_log_with_other_bytes_is_named(storage: CassandraStorage, run: Run) -> None:
    await grow(storage)
    key, offset = run("SELECT key, n FROM KS.thread ROWS = %s", SEGMENT)[-1]
    run(BODY, b"?" * 2000, SEGMENT, key, offset, 0)
    with pytest.raises(DataLoss, match="do not have the hash"):
        await storage.blobs(b.THREAD, 1, [TALLER.hash], 1 << 30)
    await others_are_whole(storage)


BODY = "UPDATE KS.thread SET body = %s ROWS = %s AND key = %s AND n = %s AND a = %s"


async def test_a_value_with_other_bytes_is_named(storage: CassandraStorage, run: Run) -> None:
    ((writer,), *_) = run("SELECT a FROM KS.thread ROWS = %s", BLOB)
    run(BODY, b"y" * values.PIECE_BYTES, BLOB, LARGE.hash, 1, writer)
    with pytest.raises(DataLoss, match="do not have the hash"):
        await storage.blobs(b.THREAD, 1, [LARGE.hash], 1 << 30)
    await others_are_whole(storage)


async def test_a_record_with_other_bytes_is_named(storage: CassandraStorage, run: Run) -> None:
    ((key, body, writer),) = run("SELECT key, body, a FROM KS.thread ROWS = %s", RECORD)
    run(BODY, body[:-1] + b"?", RECORD, key, 0, writer)
    with pytest.raises(DataLoss, match=rf"event {EVENT} of thread 't1'.*checksum"):
        await storage.events(b.THREAD, 1, [EVENT])
    await others_are_whole(storage)


async def test_a_log_row_with_other_bytes_is_named_and_its_thread_can_be_deleted(
    storage: CassandraStorage, run: Run
) -> None:
    ((key, body),) = run("SELECT key, body FROM KS.thread ROWS = %s", LOG)
    run(BODY, body[:-1] + b"?", LOG, key, 1, 0)
    with pytest.raises(DataLoss, match=r"log row .* of thread 't1'.*checksum"):
        await storage.image(b.THREAD)
    await others_are_whole(storage)
    assert await storage.delete(b.THREAD, 1) == 2
    assert (await storage.image(b.THREAD)).entries == ()


@pytest.mark.parametrize("kind", [RECORD, BLOB])
async def test_a_log_row_is_not_shown_before_what_came_with_it(
    storage: CassandraStorage, run: Run, url: str, kind: int
) -> None:
    """As another router would read it while its batch is on its way to the other replicas."""
    run("DELETE FROM KS.thread ROWS = %s", kind)
    reader = await opened(url)
    image = await reader.image(b.THREAD)
    await reader.close()
    assert (image.entries, dict(image.counts)) == ((), {storage.actor: 0})
    await others_are_whole(storage)


async def test_a_keyspace_of_a_newer_format_is_refused_and_not_changed(
    storage: CassandraStorage, run: Run, url: str
) -> None:
    run("UPDATE KS.meta SET value = 0x02 WHERE key = 'format' IF value = 0x01")
    before = len(run("SELECT key FROM KS.meta"))
    with pytest.raises(Refused, match="storage format 2; this version knows up to 1"):
        await opened(url)
    assert len(run("SELECT key FROM KS.meta")) == before


async def test_a_keyspace_that_is_not_kept_in_the_routers_datacentre_is_refused(
    run: Run, url: str
) -> None:
    name = f"away_{servers.WORKER}"
    run(f"DROP KEYSPACE IF EXISTS {name}")
    everywhere = "{'class': 'SimpleStrategy', 'replication_factor': 1}"
    run(f"CREATE KEYSPACE {name} WITH replication = {everywhere}")
    try:
        with pytest.raises(Refused, match=r"no replica in datacentre 'dc1'.*0 in SimpleStrategy"):
            await opened(f"{url.rpartition('/')[0]}/{name}?dc=dc1")
        tables = "SELECT * FROM system_schema.tables WHERE keyspace_name = %s"
        assert run(tables, name) == []
    finally:
        run(f"DROP KEYSPACE {name}")


async def test_routers_that_name_another_datacentre_than_the_first_one_are_refused(
    storage: CassandraStorage, run: Run, url: str
) -> None:
    """Here there is one datacentre, so its keyspace says that another decides."""
    here = run("SELECT value FROM KS.meta WHERE key = 'datacentre'")
    assert here == [(b"dc1",)]
    move = "UPDATE KS.meta SET value = textAsBlob('{}') WHERE key = 'datacentre' IF EXISTS"
    run(move.format("dc2"))
    before = run("SELECT key, value FROM KS.meta")
    doctor = asyncio.to_thread(lambda: list(diagnose(url)))
    looks = (opened(url), check(url, repair=True), doctor)
    for look in looks:
        with pytest.raises(Refused, match=r"decided in datacentre 'dc2'.* names 'dc1'.*dc=dc2"):
            await look
    assert run("SELECT key, value FROM KS.meta") == before
    run(move.format("dc1"))
    await (await opened(url)).close()


async def test_of_two_datacentres_whose_routers_are_the_first_at_once_one_decides(
    storage: CassandraStorage, run: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other's word comes after the look whether there is one."""
    found = schema._meta

    async def overtaken(*given: Any) -> bytes | None:
        return None if given[-1] == "datacentre" else await found(*given)

    monkeypatch.setattr(schema, "_meta", overtaken)
    await (await opened(url)).close()
    run("UPDATE KS.meta SET value = textAsBlob('dc2') WHERE key = 'datacentre' IF EXISTS")
    with pytest.raises(Refused, match="decided in datacentre 'dc2'"):
        await opened(url)


async def test_a_datacentre_that_is_not_there_is_not_served(url: str) -> None:
    with pytest.raises(Refused, match=r"no member in datacentre 'nowhere'.*dc1"):
        await opened(f"{url.rpartition('/')[0]}/away?dc=nowhere")


async def test_a_cassandra_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match=r"Cassandra at .* cannot be reached"):
        await opened("cassandra://127.0.0.1:1/ks?dc=dc1")
    with pytest.raises(Unavailable, match="no name server knows nowhere"):
        await opened("cassandra://nowhere.invalid/ks?dc=dc1")


async def test_tables_whose_rows_expire_or_are_read_without_repair_are_an_alarm(
    storage: CassandraStorage, run: Run
) -> None:
    facts = await storage.facts()
    assert facts.alarms == ()
    assert "on 1 member of dc1" in facts.promise
    assert facts.details["schema"] == "agreed"
    assert re.fullmatch(r"\d+\.\d s apart.*", facts.details["clocks"])
    (ahead,) = await storage._parts.session.clocks()
    assert abs(ahead) < 3600, "a member on this machine has its clock"
    run("ALTER TABLE KS.thread WITH default_time_to_live = 60 AND read_repair = 'NONE'")
    try:
        expire, repair = (await storage.facts()).alarms
    finally:
        run("ALTER TABLE KS.thread WITH default_time_to_live = 0 AND read_repair = 'BLOCKING'")
    assert "expire after 60 s" in expire
    assert "read_repair = 'BLOCKING'" in repair


def test_a_member_that_is_down_is_not_logged_at_each_try(
    storage: CassandraStorage, caplog: pytest.LogCaptureFixture
) -> None:
    words = "Error attempting to reconnect to %s, scheduling retry in %s seconds: %s"
    assert words in resources.files("cassandra").joinpath("pool.py").read_text()
    for member in ("a", "b", "a", "b"):
        logging.getLogger("cassandra.pool").warning(words, member, 0.5, "refused")
    said = [r.getMessage() for r in caplog.records if r.msg == words]
    assert [text.partition(",")[0][-1] for text in said] == ["a", "b"]


async def test_a_record_that_is_gone_is_named(storage: CassandraStorage, run: Run) -> None:
    later = b.append(b.checkpoint_event("s", 2, checkpoint_id="c2"))
    assert isinstance(await storage.append(later), Stored)
    run("DELETE FROM KS.thread ROWS = %s AND key = %s", RECORD, values.key_of(EVENT))
    with pytest.raises(DataLoss, match=rf"event {EVENT} of thread 't1'.*not there"):
        await storage.events(b.THREAD, 1, [EVENT, later.entry.id])
    assert await storage.threads("acme", "", 9) == ["t1", "t2"]


async def test_a_look_at_a_keyspace_that_is_not_there_makes_none(run: Run, url: str) -> None:
    name = f"absent_{servers.WORKER}"
    address = f"{url.rpartition('/')[0]}/{name}?dc=dc1"
    with pytest.raises(Refused, match="no tables"):
        await asyncio.to_thread(lambda: list(diagnose(address)))
    with pytest.raises(Refused, match="no tables"):
        await check(address, repair=True)
    assert run("SELECT * FROM system_schema.keyspaces WHERE keyspace_name = %s", name) == []
