"""A Redis that stalls, loses an answer, holds rubbish, or is not set up to keep a promise."""

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from checkpoint_router.backends.redis.facts import Found
from checkpoint_router.backends.redis.link import Link
from checkpoint_router.backends.redis.place import parse
from checkpoint_router.core.errors import DataLoss, InvalidArgument, Refused, Unavailable
from checkpoint_router.core.ids import ThreadKey
from checkpoint_router.server.diagnose import Verdict, check, diagnose
from checkpoint_router.storage.open import shown, storage_from_url
from checkpoint_router.storage.port import Duplicate, Stored
from scripts.processes import free_port
from scripts.redis_server import Server
from tests import builders as b
from tests.contract.child import checkpoint
from tests.contract.servers import need_redis
from tests.saver.proxy import Proxy

from .redis_shard import persist, router_on, server, stored

__all__ = ["server"]

CUTS = 100
"""Fewer than the tries of a put: on a busy machine each of them may be cut off."""

OTHER = ThreadKey("acme", "t2")


async def test_a_put_whose_answer_was_lost_is_one_event_with_one_dot(server: Server) -> None:
    with Proxy(f"router://127.0.0.1:{server.port}") as proxy:
        url = f"redis://{proxy.target.removeprefix('router://')}/0?timeout=0.3"
        async with router_on(url) as storage:
            before = (await stored(storage, checkpoint(1))).dot
            proxy.hold_answers()
            with pytest.raises(Unavailable, match="may be repeated"):
                await storage.append(checkpoint(2))
            proxy.cut()
            proxy.pass_all()
            assert await persist(storage, checkpoint(2)) == Duplicate(checkpoint(2).entry.digest)
            after = (await stored(storage, checkpoint(3))).dot
            image = await storage.image(b.THREAD)
            assert [e.id for e in image.entries] == [checkpoint(i).entry.id for i in (1, 2, 3)]
            assert after.actor != before.actor, "the second dot might have been given twice"
            assert image.counts == {before.actor: 2, after.actor: 1}


async def test_connections_cut_at_any_moment_make_no_second_event_and_no_second_dot(
    server: Server,
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}: decides when the connections are cut")
    chance = random.Random(seed)
    with Proxy(f"router://127.0.0.1:{server.port}") as proxy:
        url = f"redis://{proxy.target.removeprefix('router://')}/0?timeout=1"
        async with router_on(url) as storage:
            put = asyncio.gather(*(persist(storage, checkpoint(i)) for i in range(150)))
            for _ in range(CUTS):
                if put.done():
                    break
                for _ in range(chance.randint(1, 30)):
                    await asyncio.sleep(0)
                proxy.cut()
                for _ in range(300):  # room for some progress
                    await asyncio.sleep(0)
            await put
            image = await storage.image(b.THREAD)
    dots = [answer.dot for answer in put.result() if isinstance(answer, Stored)]
    assert len(dots) == len(set(dots))
    assert {e.id for e in image.entries} == {checkpoint(i).entry.id for i in range(150)}
    assert len(image.entries) == 150 == sum(image.counts.values())


async def test_puts_into_a_stalled_server_land_once_however_often_they_were_tried(
    server: Server,
) -> None:
    async with router_on(f"{server.url}?timeout=0.2") as storage:
        await stored(storage, checkpoint(1))
        os.kill(server.pid, signal.SIGSTOP)
        tries = [checkpoint(i) for i in (2, 3, 4) for _ in range(3)]
        try:
            ends = await asyncio.gather(*map(storage.append, tries), return_exceptions=True)
            ends += await asyncio.gather(*map(storage.append, tries), return_exceptions=True)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert all(isinstance(end, Unavailable) for end in ends)
        for number in (4, 3, 2, 5):
            assert isinstance(await persist(storage, checkpoint(number)), Stored | Duplicate)
        image = await storage.image(b.THREAD)
        assert {e.id for e in image.entries} == {checkpoint(i).entry.id for i in range(1, 6)}
        assert len(image.entries) == 5 == sum(image.counts.values())


async def test_puts_that_wait_behind_one_that_a_dead_server_fails_are_not_tried_in_turn(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0
    run = Link.run

    async def counted(self: Link, *args: Any) -> Any:
        nonlocal tried
        tried += 1
        return await run(self, *args)

    async with router_on(f"{server.url}?timeout=0.3") as storage:
        await stored(storage, checkpoint(0))
        monkeypatch.setattr(Link, "run", counted)
        os.kill(server.pid, signal.SIGSTOP)
        puts = [storage.append(checkpoint(number)) for number in range(1, 200)]
        ends = await asyncio.gather(*puts, return_exceptions=True)
        os.kill(server.pid, signal.SIGCONT)
        assert all(isinstance(end, Unavailable) for end in ends)
        assert tried == 1


async def test_puts_that_wait_behind_a_call_that_was_given_up_are_answered(server: Server) -> None:
    async with router_on(server.url) as storage:
        first = (await stored(storage, checkpoint(1))).dot
        os.kill(server.pid, signal.SIGSTOP)
        given_up = asyncio.ensure_future(storage.put_blobs(b.THREAD, 1, [b.new_blob("x" * 999)]))
        for _ in range(5):  # it is on its way
            await asyncio.sleep(0)
        waiting = asyncio.gather(*(storage.append(checkpoint(n)) for n in (2, 3)))
        await asyncio.sleep(0)
        given_up.cancel()
        os.kill(server.pid, signal.SIGCONT)
        answers = await asyncio.wait_for(waiting, 20)
        assert [a.dot.n for a in answers if isinstance(a, Stored)] == [2, 3]
        assert storage.actor == first.actor, "values take no dot, so there is no doubt"
        with pytest.raises(asyncio.CancelledError):
            await given_up


async def test_two_routers_that_grow_one_value_at_once_keep_every_version(server: Server) -> None:
    async with router_on(server.url) as one, router_on(server.url) as two:
        start = b.new_blob(b"\xdc\x00\x01" + b"x" * 3000)
        await one.put_blobs(b.THREAD, 1, [start])
        newest, hashes = start, []
        for turn in range(25):
            said = [newest.value.data + f"{who} says {turn}".encode() * 5 for who in range(4)]
            made = [b.new_blob(data, continues=newest) for data in said]
            events = [
                b.checkpoint_event(f"s{who}-{turn}", blobs=[blob]) for who, blob in enumerate(made)
            ]
            await asyncio.gather(
                *(
                    stored((one, two)[who % 2], b.append(event, blobs=[made[who]]))
                    for who, event in enumerate(events)
                )
            )
            hashes += [blob.hash for blob in made]
            newest = made[turn % 4]
        read = await two.blobs(b.THREAD, 1, hashes, 1 << 30)
        assert set(read.found) == set(hashes)


async def test_a_value_that_grows_costs_its_bytes_once_and_a_fork_of_it_its_tail(
    server: Server,
) -> None:
    from checkpoint_router.backends.redis import layout

    async with router_on(server.url) as storage:
        newest, ages = b.new_blob(b"\xdc\x00\x01" + b"x" * 3000), []
        for turn in range(60):
            data = newest.value.data + f"turn {turn}".encode() * 20
            newest = b.new_blob(data, continues=newest)
            ages.append(newest)
            await storage.put_blobs(b.THREAD, 1, [newest])
        fork = b.new_blob(ages[30].value.data + b"fork" * 500, continues=ages[30])
        await storage.put_blobs(b.THREAD, 1, [fork])
        client = storage._link  # type: ignore[attr-defined]  # to see what is stored
        keys = dict(zip("skcelpjbvinrtx", layout.keys(b.THREAD), strict=True))
        whole = sum(len(v) for v in await client.do("hvals", keys["v"]))
        logs = [key for key in await client.do("keys", "*") if key.startswith(keys["x"])]
        size = whole + sum([await client.do("strlen", key) for key in logs])
        assert size <= len(newest.value.data) + len(b"fork" * 500)
        read = await storage.blobs(b.THREAD, 1, [x.hash for x in (*ages, fork)], 1 << 30)
        assert len(read.found) == 61


@pytest.mark.parametrize("kind", "skcelpjbvinrt")
async def test_a_foreign_key_is_a_typed_error_before_anything_is_changed(
    server: Server, kind: str
) -> None:
    from checkpoint_router.backends.redis import layout

    async with router_on(server.url) as storage:
        await stored(storage, b.append(b.checkpoint_event(run_id="r"), thread=OTHER))
        key = layout.keys(b.THREAD)["skcelpjbvinrt".index(kind)].decode()
        server.command("DEL", key)
        server.command("SET", key, "rubbish")
        with pytest.raises((DataLoss, Unavailable)) as caught:
            await storage.append(b.append(b.checkpoint_event(run_id="r")))
        assert isinstance(caught.value, DataLoss), caught.value
        assert b.THREAD.thread in str(caught.value)
        server.command("DEL", key)
        assert (await storage.image(b.THREAD)).entries == ()
        if kind not in "sinrt":
            assert len((await storage.image(OTHER)).entries) == 1


async def test_broken_records_entries_and_values_are_named_and_spare_the_others(
    server: Server,
) -> None:
    from checkpoint_router.backends.redis import layout

    async with router_on(server.url) as storage:
        for number in (1, 2):
            await stored(storage, checkpoint(number))
        broken, whole = checkpoint(1), checkpoint(2)
        client = storage._link  # type: ignore[attr-defined]  # to write what no router writes
        keys = dict(zip("skcelpjbvinrtx", layout.keys(b.THREAD), strict=True))
        field = layout.event_field(broken.entry.id)
        row = bytes(await client.do("hget", keys["p"], field))
        await client.do("hset", keys["p"], field, row[:-1] + bytes([row[-1] ^ 1]))
        with pytest.raises(DataLoss, match=str(broken.entry.id)):
            await storage.events(b.THREAD, 1, [broken.entry.id])
        await client.do("hdel", keys["p"], field)
        with pytest.raises(DataLoss, match=str(broken.entry.id)):
            await storage.events(b.THREAD, 1, [broken.entry.id])
        await client.do("hset", keys["v"], broken.names[0], b"other bytes")
        with pytest.raises(DataLoss, match=broken.names[0].hex()[:16]):
            await storage.blobs(b.THREAD, 1, broken.names, 1 << 20)
        assert await storage.events(b.THREAD, 1, [whole.entry.id]) == {whole.entry.id: whole.packed}
        entry = bytes((await client.do("lrange", keys["l"], 0, 0))[0])
        await client.do("lset", keys["l"], 0, entry[:-1] + bytes([entry[-1] ^ 1]))
        with pytest.raises(DataLoss, match="index entry"):
            await storage.image(b.THREAD)


def test_doctor_says_what_a_redis_promises_and_what_is_wrong_with_it(server: Server) -> None:
    found = list(diagnose(server.url))
    assert {f.verdict for f in found} == {Verdict.GOOD}
    assert "loss of power" in next(f.text for f in found if f.what == "promise")
    server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    bad = [f.what for f in diagnose(server.url) if f.verdict is Verdict.BAD]
    assert bad == ["settings", "alarm"]
    assert server.command("DBSIZE") == "0", "a look changes nothing"


async def test_more_calls_at_once_than_there_are_connections_wait_for_one(server: Server) -> None:
    async with router_on(server.url) as storage:
        threads = [ThreadKey("acme", f"t{number}") for number in range(400)]
        appends = [b.append(b.checkpoint_event(), thread=thread) for thread in threads]
        await asyncio.gather(*(stored(storage, append) for append in appends))
        images = await asyncio.gather(*map(storage.image, threads))
        assert all(len(image.entries) == 1 for image in images)


async def test_a_full_server_takes_nothing_of_a_put_and_says_what_to_do(server: Server) -> None:
    async with router_on(server.url) as storage:
        await stored(storage, checkpoint(1))
        server.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(Unavailable, match="raise maxmemory"):
            await storage.append(checkpoint(2))
        assert len((await storage.image(b.THREAD)).entries) == 1
        server.command("CONFIG", "SET", "maxmemory", "0")
        await stored(storage, checkpoint(2))


def make_certificate(cert: Path, key: Path) -> None:
    """One that is its own authority."""
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=redis"
    make += f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {cert}"
    subprocess.run(make.split(), check=True, capture_output=True)


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "promise"),
        [
            ({"appendfsync": "always"}, "a loss of power, on a disk"),
            ({"appendfsync": "everysec"}, "may take the last two seconds"),
            ({"appendfsync": "no"}, "after its last snapshot"),
            ({"appendonly": "no"}, "after its last snapshot"),
        ],
    )
    async def test_the_promise_is_what_the_server_is_set_to(
        self, server: Server, settings: dict[str, str], promise: str
    ) -> None:
        for name, value in settings.items():
            server.command("CONFIG", "SET", name, value)
        async with router_on(server.url) as storage:
            assert promise in (await storage.facts()).promise

    async def test_a_server_that_keeps_less_than_it_is_asked_for_is_refused(
        self, server: Server
    ) -> None:
        server.command("CONFIG", "SET", "appendfsync", "everysec")
        with pytest.raises(Refused, match=r"promise=always.*keep everysec.*Nothing was written"):
            await storage_from_url(f"{server.url}?promise=always").open()
        assert server.command("DBSIZE") == "0"
        async with router_on(f"{server.url}?promise=everysec") as storage:
            await stored(storage, checkpoint(1))
        server.command("CONFIG", "SET", "appendonly", "no")
        with pytest.raises(Refused, match="its settings keep none"):
            await storage_from_url(f"{server.url}?promise=everysec").open()

    async def test_a_server_that_evicts_is_refused_unless_that_is_accepted(
        self, server: Server
    ) -> None:
        server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        with pytest.raises(Refused, match=r"allkeys-lru.*accept=eviction"):
            await storage_from_url(server.url).open()
        async with router_on(f"{server.url}?accept=eviction") as storage:
            assert "allkeys-lru" in (await storage.facts()).alarms[0]

    async def test_a_server_that_does_not_tell_is_believed_what_its_operator_says(
        self, server: Server, tmp_path: Path
    ) -> None:
        server.command(
            "ACL",
            "SETUSER",
            "agent",
            "on",
            ">se{cr}et/",
            "~*",
            *["+@read", "+@write", "+@scripting", "+@connection", "+info"],
        )
        file = tmp_path / "password"
        file.write_text("se{cr}et/\n")
        url = server.url.replace("//", "//agent@") + f"?password_file={file}"
        async with router_on(url) as storage:
            said = (await storage.facts()).promise
            assert "after its last snapshot" in said
            assert "say ?promise=" in said
        async with router_on(f"{url}&promise=always") as storage:
            facts = await storage.facts()
            assert "as its operator says" in facts.promise
            assert facts.url == server.url
            await stored(storage, checkpoint(1))
        with pytest.raises(Refused, match=r"user and password.*PASSWORD.*Nothing was changed"):
            await storage_from_url(server.url.replace("//", "//agent:wrong@")).open()

    async def test_tls_is_spoken_with_a_server_whose_certificate_is_trusted(
        self, tmp_path: Path
    ) -> None:
        need_redis()
        cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
        make_certificate(cert, key)
        port = str(free_port())
        tls = {"tls_port": port, "tls_cert_file": str(cert), "tls_key_file": str(key)}
        server = Server(tmp_path / "tls", tls_auth_clients="no", **tls)
        server.start()
        try:
            async with router_on(f"rediss://127.0.0.1:{port}/0?ca={cert}") as storage:
                assert (await storage.facts()).url == f"rediss://127.0.0.1:{port}/0"
                await stored(storage, checkpoint(1))
            for url, why in (
                (f"rediss://127.0.0.1:{port}/0", r"CERTIFICATE_VERIFY.*signed it with \?ca=FILE"),
                (f"rediss://localhost:{port}/0?ca={cert}", r"CERTIFICATE_VERIFY.*host as"),
            ):
                with pytest.raises(Refused, match=why):
                    await storage_from_url(url).open()
            with pytest.raises(Unavailable, match="speaks TLS, write rediss"):
                await storage_from_url(f"redis://127.0.0.1:{port}/0").open()
            for files in (f"ca={tmp_path}/none", f"ca={key}", f"ca={cert}&cert={cert}"):
                with pytest.raises(InvalidArgument, match="which cannot be used"):
                    storage_from_url(f"rediss://127.0.0.1:{port}/0?{files}")
        finally:
            server.stop()

    @pytest.mark.parametrize("url", ["redis://host/0", "cassandra://host/ks?dc=d"])
    def test_a_driver_that_is_not_installed_is_named_with_its_extra(self, url: str) -> None:
        driver = url.partition(":")[0]
        program = (
            f"import sys; sys.modules[{driver!r}] = None\n"
            "from checkpoint_router.server.diagnose import diagnose\n"
            "from checkpoint_router.storage.open import storage_from_url\n"
            "for call in storage_from_url, diagnose:\n"
            f"    try: list(call({url!r}))\n"
            "    except Exception as e: sys.stderr.write(f'{type(e).__name__}: {e}')\n"
        )
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        ended = subprocess.run(
            [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False
        )
        said = re.findall(r"Refused: .*? pip install '.\[server,(\w+)\]'", ended.stderr)
        assert said == [driver, driver], ended.stderr

    @pytest.mark.parametrize(("version", "refused"), [("6.0.16", True), ("6.2.0", False)])
    def test_an_older_server_is_refused(self, version: str, refused: bool) -> None:
        """What such a server says of itself is made up: none is on the machines that test."""
        info = {"redis_version": version, "role": "master", "maxmemory_policy": "noeviction"}
        found = Found(parse("redis", "//host"), (info,), (None,), clustered=False)
        if refused:
            with pytest.raises(Refused, match=r"6\.2"):
                found.check()
        else:
            found.check()

    async def test_a_newer_format_is_refused(self, server: Server) -> None:
        server.command("SET", "checkpoint-router:format", "99")
        with pytest.raises(Refused, match="99"):
            await storage_from_url(server.url).open()
        with pytest.raises(Refused, match="99"):
            await check(server.url, repair=True)
        bad = await asyncio.to_thread(lambda: list(diagnose(server.url)))
        assert [f.what for f in bad if f.verdict is Verdict.BAD] == ["format"]
        assert server.command("DBSIZE") == "1", "nothing was changed"

    async def test_a_server_that_is_not_there_is_unavailable(self, server: Server) -> None:
        server.stop()
        with pytest.raises(Unavailable, match=str(server.port)):
            await storage_from_url(server.url).open()

    @pytest.mark.parametrize(
        "rest",
        ["", "//", "host:1", "//host:port/0", "//host/x", "//host?other=1", "//host?promise=all",
         "//host?accept=all", "//host?ca=/x", "//host?timeout=never", "//host?timeout=0",
         "//host?password_file=/nowhere/at/all"],
    )  # fmt: skip
    def test_a_url_that_makes_no_sense_is_refused_without_its_password(self, rest: str) -> None:
        with pytest.raises(InvalidArgument, match="storage URL") as caught:
            storage_from_url("redis:" + rest.replace("//host", "//user:secret@host"))
        assert "secret" not in str(caught.value)

    def test_a_password_may_come_from_the_environment_and_is_not_in_what_is_printed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CHECKPOINT_ROUTER_REDIS_PASSWORD", "from outside")
        place, own = parse("redis", "//agent@host"), parse("redis", "//agent:its%2Fown@host")
        assert [each.options()["password"] for each in (place, own)] == ["from outside", "its/own"]
        assert "from outside" not in f"{place} {place!r} {place.url}"

    @pytest.mark.parametrize(
        ("url", "safe"),
        [
            ("redis://u:secret@host:1/0?a=b", "redis://u:…@host:1/0?a=b"),
            ("redis://:secr:et@host", "redis://:…@host"),
            ("redis://u@host:1", "redis://u@host:1"),
            ("sqlite:/a:b@c", "sqlite:/a:b@c"),
        ],
    )
    def test_a_url_is_shown_without_its_password(self, url: str, safe: str) -> None:
        assert shown(url) == safe
