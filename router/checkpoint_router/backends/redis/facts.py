"""What a Redis promises, read from itself: what an acknowledged write survives, and what is wrong.

A server that does not tell its configuration is believed what the operator says of it, and that is
shown as said.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from checkpoint_router.backends.redis.link import Link
from checkpoint_router.backends.redis.place import Place
from checkpoint_router.core.errors import Refused, Unavailable
from checkpoint_router.storage.port import Facts

VERSION_MIN: Final = (6, 2)

_PROMISES: Final = {
    "always": "An acknowledged write survives a crash of the router and of Redis, and a loss of "
    "power, on a disk that keeps what it has confirmed",
    "everysec": "An acknowledged write survives a crash of the router and of Redis; a loss of "
    "power may take the last two seconds",
    "none": "An acknowledged write survives a crash of the router; a restart of Redis may take all "
    "that came after its last snapshot",
}


_WEAKEST_FIRST: Final = ("none", "everysec", "always")


@dataclass(frozen=True, slots=True)
class Found:
    """Of one server, or of the weakest of a cluster."""

    place: Place
    infos: tuple[Mapping[str, Any], ...]
    configs: tuple[Mapping[str, str] | None, ...]
    clustered: bool

    def check(self) -> None:
        """Raises Refused for a server that cannot keep what its settings promise."""
        for info in self.infos:
            version = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
            if version < VERSION_MIN:
                raise Refused(
                    f"{self.place.url} is Redis {info['redis_version']}; it needs to be 6.2 or "
                    f"newer, or Valkey. Nothing was written. Upgrade it."
                )
            if info.get("role") == "slave":
                raise Refused(
                    f"{self.place.url} is a replica. Name its primary. Nothing was written."
                )
        evicting = self._evicting()
        if evicting and "eviction" not in self.place.accept:
            raise Refused(
                f"{self.place.url} has maxmemory-policy {evicting}: when its memory is full it "
                f"throws away acknowledged checkpoints. Nothing was written. Set it to "
                f"noeviction, or say that you accept it: add ?accept=eviction to the URL."
            )

        wanted, mode = self.place.promise, self.mode()
        if wanted is not None and _WEAKEST_FIRST.index(mode) < _WEAKEST_FIRST.index(wanted):
            raise Refused(
                f"{self.place.url} is to keep promise={wanted}, and its settings keep {mode}. "
                f"Nothing was written. Set appendonly to yes and appendfsync to {wanted}, or say "
                f"promise={mode}."
            )

    def facts(self) -> Facts:
        """For an operator."""
        info, mode = self.infos[0], self.mode()
        said = ""
        if any(c is None and _appends(i) for i, c in zip(self.infos, self.configs, strict=True)):
            said = " (as its operator says: it does not tell)"
            if self.place.promise is None:
                said = " (it does not tell more: allow config|get, or say ?promise=always|everysec)"
        promise = _PROMISES[mode] + said + "."
        details = {
            "version": str(info["redis_version"]),
            "servers": str(len(self.infos)),
            "cluster": "yes" if self.clustered else "no",
            "persistence": mode,
            "maxmemory_policy": str(info.get("maxmemory_policy", "unknown")),
            "replicas": str(min(int(i.get("connected_slaves", 0)) for i in self.infos)),
            "used_memory_bytes": str(sum(int(i.get("used_memory", 0)) for i in self.infos)),
        }
        return Facts(
            url=self.place.url, promise=promise, alarms=tuple(self._alarms()), details=details
        )

    def mode(self) -> str:
        """The weakest of `always`, `everysec` and `none`."""
        modes = []
        for info, config in zip(self.infos, self.configs, strict=True):
            if not _appends(info):
                modes.append("none")
            elif config is None:
                modes.append(self.place.promise or "none")
            else:
                fsync = config.get("appendfsync", "no")
                modes.append(fsync if fsync in _PROMISES else "none")
        return next(mode for mode in _WEAKEST_FIRST if mode in modes)

    def _evicting(self) -> str:
        policies = (str(info.get("maxmemory_policy", "noeviction")) for info in self.infos)
        return next((p for p in policies if p != "noeviction"), "")

    def _alarms(self) -> list[str]:
        alarms = []
        if self._evicting():
            alarms.append(
                f"maxmemory-policy is {self._evicting()}: a full Redis throws away acknowledged "
                f"checkpoints. Set it to noeviction."
            )
        for info in self.infos:
            for field, what in (
                ("aof_last_write_status", "writing its append-only file"),
                ("rdb_last_bgsave_status", "saving its snapshot"),
            ):
                if str(info.get(field, "ok")) != "ok":
                    alarms.append(f"Redis failed at {what}: look at its log and its disk.")
        return alarms


def _appends(info: Mapping[str, Any]) -> bool:
    return bool(int(info.get("aof_enabled", 0)))


async def read(link: Link) -> Found:
    """Asks each server that takes writes. Raises Unavailable."""
    infos = await link.of_each("INFO", "everything")
    configs: list[Mapping[str, str] | None]
    try:
        configs = await link.of_each("CONFIG GET", "appendfsync")
    except Unavailable as e:  # forbidden or not known, as managed services do
        if e.attributes.get("redis") not in ("NoPermissionError", "ResponseError"):
            raise
        configs = [None] * len(infos)
    return Found(link.place, tuple(infos), tuple(configs), link.clustered)
