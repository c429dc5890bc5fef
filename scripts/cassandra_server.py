"""Real Cassandras for tests, demo and benchmarks: one member, or more that know each other.

    python scripts/cassandra_server.py install     make sure that this machine has what it needs
    python scripts/cassandra_server.py run         run one until Ctrl-C, and say its URL

The jars come through Maven, once, into a folder of the user's cache; the Java of JAVA_HOME, else
of the PATH, runs them. `CHECKPOINT_ROUTER_TEST_CASSANDRA=4.1.10` takes another version of it.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

if __name__ == "__main__":  # Run as a file, it has its own folder on the path.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import processes

VERSION: Final = os.environ.get("CHECKPOINT_ROUTER_TEST_CASSANDRA") or "5.0.6"

DATACENTRE: Final = "dc1"

JAVA: Final = 11 if VERSION.startswith("4.") else 17

_POM: Final = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion>
<groupId>local</groupId><artifactId>cassandra-runtime</artifactId><version>1</version>
<dependencies><dependency>
<groupId>org.apache.cassandra</groupId><artifactId>cassandra-all</artifactId>
<version>{VERSION}</version>
</dependency></dependencies></project>
"""

_YAML: Final = """\
cluster_name: checkpoint-router
num_tokens: 1
initial_token: "{token}"
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
data_file_directories: [{directory}/data]
commitlog_directory: {directory}/commitlog
saved_caches_directory: {directory}/saved_caches
hints_directory: {directory}/hints
cdc_raw_directory: {directory}/cdc_raw
commitlog_sync: batch
commitlog_segment_size: 16MiB
commitlog_total_space: 128MiB
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{{seeds: "{seed}:{storage_port}"}}]
listen_address: {address}
rpc_address: {address}
storage_port: {storage_port}
native_transport_port: {port}
endpoint_snitch: GossipingPropertyFileSnitch
auto_bootstrap: false
auto_snapshot: false
memtable_heap_space: 96MiB
memtable_offheap_space: 32MiB
key_cache_size: 4MiB
row_cache_size: 0MiB
counter_cache_size: 0MiB
file_cache_size: 32MiB
networking_cache_size: 16MiB
concurrent_reads: 8
concurrent_writes: 8
native_transport_max_threads: 8
{more}"""

_LOGBACK: Final = """<configuration>
<appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
<encoder><pattern>%d{HH:mm:ss.SSS} %-5level %logger{0} %msg%n</pattern></encoder></appender>
<root level="WARN"><appender-ref ref="OUT"/></root>
</configuration>
"""

_EXPORTS: Final = (
    "java.base/java.lang.ref java.base/jdk.internal.misc java.base/jdk.internal.ref"
    " java.base/sun.nio.ch java.management.rmi/com.sun.jmx.remote.internal.rmi"
    " java.rmi/sun.rmi.registry java.rmi/sun.rmi.server java.sql/java.sql jdk.unsupported/sun.misc"
)
_OPENS: Final = (
    "java.base/java.io java.base/java.lang java.base/java.lang.module java.base/java.net"
    " java.base/java.nio java.base/java.util java.base/java.util.concurrent"
    " java.base/java.util.concurrent.atomic java.base/jdk.internal.loader"
    " java.base/jdk.internal.math java.base/jdk.internal.module java.base/jdk.internal.ref"
    " java.base/jdk.internal.reflect java.base/jdk.internal.util.jar java.base/sun.nio.ch"
    " jdk.management/com.sun.management.internal"
)

PACKAGES: Final = ("openjdk-17-jre-headless", "maven")
HINT: Final = (
    f"Cassandra {VERSION} cannot run on this machine: it needs a Java {JAVA} and, once, Maven. "
    "`make services` installs Java 17 and Maven on Debian and Ubuntu as root (or with sudo); "
    "elsewhere install them, so that `java` (or that of JAVA_HOME, if it is set) and `mvn` are on "
    "the PATH. Everything but Cassandra's tests runs without."
)


def jars() -> Path | None:
    """The folder with Cassandra, if this machine has all that it needs."""
    return _folder() if _has_java() and _has_jars(_folder()) else None


def _folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "checkpoint-router" / f"cassandra-{VERSION}"


def _has_jars(folder: Path) -> bool:
    return (folder / f"cassandra-all-{VERSION}.jar").is_file()


def _java() -> str | None:
    home = os.environ.get("JAVA_HOME")
    return shutil.which("java", path=f"{home}/bin" if home else None)


def _has_java() -> bool:
    java = _java()
    if java is None:
        return False
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)  # noqa: S603 - the one in use
    return re.search(rf'version "{JAVA}\b', said.stderr) is not None


def install() -> None:
    """Idempotent. Raises SystemExit with a hint where it cannot be installed."""
    if jars() is not None:
        return
    if not _has_java() and JAVA != 17:  # Debian has no other.
        raise SystemExit(HINT)
    if not _has_java() or (not _has_jars(_folder()) and shutil.which("mvn") is None):
        processes.install_packages(PACKAGES, HINT)
    if not _has_java():  # JAVA_HOME, or the first one of the PATH, is another.
        raise SystemExit(HINT)
    if not _has_jars(_folder()):
        _install_jars(_folder())


def _install_jars(target: Path) -> None:
    work = target.with_name(f"{target.name}.{os.getpid()}")
    work.mkdir(parents=True)
    (work / "pom.xml").write_text(_POM)
    words = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={work}"]
    done = subprocess.run(words, cwd=work, check=False)  # noqa: S603 - our own words
    try:
        if done.returncode or not _has_jars(work):
            raise SystemExit(f"Maven did not bring Cassandra {VERSION}. Look at what it said.")
        with contextlib.suppress(OSError):  # Another run was faster.
            work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


class Server(processes.Server):
    """One member, of a cluster of its own unless it is given a `seed` to join."""

    start_seconds_max = 180.0
    """About 6 on a quiet machine. Shorter: a busy machine fails the tests."""
    hint = HINT

    def __init__(
        self,
        directory: Path,
        *,
        dc: str = DATACENTRE,
        seed: "Server | None" = None,
        number: int = 1,
        more: str = "",
    ) -> None:
        """Of a cluster's members each has a `number` of its own, which is its address and its
        token. `more` goes into cassandra.yaml."""
        super().__init__(directory)
        self.dc = dc
        self.address = f"127.0.0.{number}"
        self._seed: str = self.address if seed is None else seed.address
        self._storage_port: int = processes.free_port() if seed is None else seed._storage_port
        self._number = number
        self._more = more
        if seed is not None:
            self.port = seed.port

    @property
    def url(self) -> str:
        """For a router, which makes the keyspace."""
        return f"cassandra://{self.address}:{self.port}/checkpoints?dc={self.dc}"

    def command_line(self) -> list[str] | None:
        folder, java = jars(), _java()
        if folder is None or java is None:
            return None
        home = self.directory
        settings = {
            "cassandra.config": f"file://{self._written('cassandra.yaml', self._yaml())}",
            "cassandra-rackdc.properties": "file://"
            + self._written("cassandra-rackdc.properties", f"dc={self.dc}\nrack=r1\n"),
            "logback.configurationFile": f"file://{self._written('logback.xml', _LOGBACK)}",
            "cassandra.storagedir": str(home),
            "cassandra.logdir": str(home),
            "cassandra-foreground": "yes",
            "cassandra.skip_wait_for_gossip_to_settle": "0",
            "cassandra.ring_delay_ms": "1000",
            "cassandra.superuser_setup_delay_ms": "0",
            "jdk.attach.allowAttachSelf": "true",
            "java.io.tmpdir": str(home),
        }
        (agent,) = folder.glob("jamm-*.jar")
        return [
            *(java, "-Xms512m", "-Xmx512m", "-XX:MaxDirectMemorySize=256m", "-XX:+UseSerialGC"),
            *("-Xss512k", "-XX:TieredStopAtLevel=1", f"-javaagent:{agent}"),
            *(f"-D{name}={value}" for name, value in settings.items()),
            *(f"--add-exports={name}=ALL-UNNAMED" for name in _EXPORTS.split()),
            *(f"--add-opens={name}=ALL-UNNAMED" for name in _OPENS.split()),
            *("-cp", f"{folder}/*", "org.apache.cassandra.service.CassandraDaemon"),
        ]

    def _yaml(self) -> str:
        return _YAML.format(
            directory=self.directory,
            address=self.address,
            seed=self._seed,
            port=self.port,
            storage_port=self._storage_port,
            token=self._number,
            more=self._more,
        )

    def _written(self, name: str, text: str) -> str:
        file = self.directory / name
        file.write_text(text)
        return str(file)


if __name__ == "__main__":
    processes.main(__doc__, install, lambda: f"Cassandra {VERSION} in {jars()}", Server)
