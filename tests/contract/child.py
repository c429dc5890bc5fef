"""A process that holds a storage and is killed: it says what it was answered, line by line.

Run as `python -m tests.contract.child URL TASK [NUMBER]`. It prints `ack …` right after a verb
returned, and then waits for the end that its parent makes.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable

from checkpoint_router.storage.open import storage_from_url
from checkpoint_router.storage.port import Append, Erase, Storage, Stored
from tests import builders as b

BLOB = b.new_blob("a value of its own")
OPERATION = b"o" * 16


def checkpoint(number: int) -> Append:
    """The append of checkpoint `number`, of a segment of its own, with a blob of its own."""
    blob = b.new_blob(f"value {number}" * 100)
    event = b.checkpoint_event(f"s{number}", 1, checkpoint_id=f"c{number}", blobs=[blob])
    return b.append(event, blobs=[blob])


async def append(storage: Storage, number: int) -> str:
    answer = await storage.append(checkpoint(number))
    assert isinstance(answer, Stored)
    return f"{number} {answer.dot.actor} {answer.dot.n}"


async def put_blobs(storage: Storage, number: int) -> str:
    return str(await storage.put_blobs(b.THREAD, 1, [BLOB]))


async def delete(storage: Storage, number: int) -> str:
    await append(storage, 1)
    return str(await storage.delete(b.THREAD, 1))


async def erase(storage: Storage, number: int) -> str:
    await append(storage, 1)
    gone = Erase(
        thread=b.THREAD,
        gen=1,
        operation=OPERATION,
        events=(checkpoint(1).entry.id,),
        blobs=checkpoint(1).names,
        stored=1,
    )
    return str(await storage.erase(gone))


async def system_key(storage: Storage, number: int) -> str:
    return (await storage.system_key()).hex()


async def flood(storage: Storage, number: int) -> str:
    """Appends from eight callers at once without an end, each acknowledged by a line."""

    async def caller(first: int) -> None:
        for mine in range(first, 1 << 40, 8):
            say(await append(storage, number + mine))

    await asyncio.gather(*(caller(first) for first in range(8)))
    raise AssertionError("it ends by being killed")


TASKS: dict[str, Callable[[Storage, int], Awaitable[str]]] = {
    task.__name__: task for task in (append, put_blobs, delete, erase, system_key, flood)
}


def say(what: str) -> None:
    sys.stdout.write(f"ack {what}\n")
    sys.stdout.flush()


async def main(url: str, task: str, number: int) -> None:
    storage = storage_from_url(url)
    await storage.open()
    say(await TASKS[task](storage, number))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
