"""Work that is done for many at once: one round is under way, and whoever comes waits for the next.

Rule: a round begins after each of its askers came, so what it reads is as new as each of them
needs, and what it writes has all of them in it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")


class Gather(Generic[A, R]):
    """`work` takes what was asked, and returns as many answers in the same order."""

    def __init__(
        self,
        work: Callable[[list[A]], Awaitable[list[R]]],
        *,
        most: int = 1000,
        size_max: int = 1,
    ) -> None:
        self._work = work
        self._most = most
        self._size_max = size_max
        self._waiting: list[tuple[A, int, asyncio.Future[R]]] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Nothing is under way."""
        return self._task is None

    def ask(self, what: A, size: int = 0) -> "asyncio.Future[R]":
        """The answer to come. It may be abandoned; the work is done all the same. A round takes
        no more than `size_max` in all, unless one alone is larger."""
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((what, size, answer))
        if self._task is None:
            self._task = asyncio.ensure_future(self._rounds())
        return answer

    async def end(self) -> None:
        """Returns when nothing is under way."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def _rounds(self) -> None:
        try:
            while self._waiting:
                await self._round(self._take())
        finally:
            self._task = None

    def _take(self) -> list[tuple[A, int, asyncio.Future[R]]]:
        count, total = 0, 0
        for _, size, _ in self._waiting[: self._most]:
            total += size
            if count and total > self._size_max:
                break
            count += 1
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    async def _round(self, taken: list[tuple[A, int, "asyncio.Future[R]"]]) -> None:
        try:
            answers = await self._work([what for what, _, _ in taken])
        except Exception as e:  # noqa: BLE001  (each asker gets it; the rounds go on)
            for _, _, answer in taken:
                if not answer.done():
                    answer.set_exception(e)
                    answer.exception()  # Whoever gave up waiting does not look at it.
            return
        for (_, _, answer), value in zip(taken, answers, strict=True):
            if not answer.done():
                answer.set_result(value)
