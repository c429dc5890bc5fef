"""A real Cassandra of one member, for tests, demo and benchmarks.

    python scripts/cassandra_server.py install     make sure that this machine has what it needs
    python scripts/cassandra_server.py run         run one until Ctrl-C, and say its URL

Owner: `Server` owns its process, which it ends by pid, and a directory. Rules: loopback and free
ports only; a small heap; nothing waits without a deadline. The jars come through Maven, once, into
a folder of the user's cache; a Java 17 runs them.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

VERSION: Final = "5.0.6"

DATACENTRE: Final = "dc1"

START_SECONDS_MAX: Final = 180.0
"""About 6 on a quiet machine. Shorter: a busy machine fails the tests."""

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
initial_token: "0"
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
    parameters: [{{seeds: "127.0.0.1:{storage_port}"}}]
listen_address: 127.0.0.1
rpc_address: 127.0.0.1
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
"""

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
    "Cassandra cannot run on this machine: it needs a Java 17 and, once, Maven. `make services` "
    "installs them on Debian and Ubuntu as root (or with sudo); elsewhere install them, so that "
    "`java` and `mvn` are on the PATH. Everything but Cassandra's tests runs without."
)


def jars() -> Path | None:
    """The folder with Cassandra, if this machine has all that it needs."""
    return _folder() if _is_java_17() and _has_jars(_folder()) else None


def _folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "checkpoint-router" / f"cassandra-{VERSION}"


def _has_jars(folder: Path) -> bool:
    return (folder / f"cassandra-all-{VERSION}.jar").is_file()


def _is_java_17() -> bool:
    java = shutil.which("java")
    if java is None:
        return False
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)  # noqa: S603 - the one in PATH
    return 'version "17' in said.stderr


def install() -> None:
    """Idempotent. Raises SystemExit with a hint where it cannot be installed."""
    if jars() is not None:
        return
    if not _is_java_17() or (not _has_jars(_folder()) and shutil.which("mvn") is None):
        _install_packages()
    if not _has_jars(_folder()):
        _install_jars(_folder())


def _install_packages() -> None:
    if shutil.which("apt-get") is None:
        raise SystemExit(HINT)
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive"]
    for command in (
        ["update", "-qq"],
        ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES],
    ):
        if subprocess.run([*root, *quiet, "apt-get", *command], check=False).returncode:  # noqa: S603 - our own words
            raise SystemExit(f"apt-get {command[0]} failed. {HINT}")


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


class Server:
    """One member. Its port and its data outlive a kill and a start."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self._storage_port = free_port()
        self._log = directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """For a router, which makes the keyspace."""
        return f"cassandra://127.0.0.1:{self.port}/checkpoints?dc={DATACENTRE}"

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    def start(self) -> None:
        """Returns when it answers. It has the port and the data that it had before."""
        folder = jars()
        if folder is None:
            raise SystemExit(HINT)
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own words
                ["java", *self._options(folder)],  # noqa: S607 - the one in PATH
                cwd=self.directory,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_the_parent,
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                log_text = self._log.read_text(errors="replace")[-4000:]
                self.stop()
                raise RuntimeError(f"Cassandra did not start:\n{log_text}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends it, by pid, as a crash would unless said otherwise. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(timeout=60)

    def _options(self, folder: Path) -> list[str]:
        home = self.directory
        home.mkdir(parents=True, exist_ok=True)
        yaml = _YAML.format(directory=home, port=self.port, storage_port=self._storage_port)
        (home / "cassandra.yaml").write_text(yaml)
        (home / "cassandra-rackdc.properties").write_text(f"dc={DATACENTRE}\nrack=r1\n")
        (home / "logback.xml").write_text(_LOGBACK)
        settings = {
            "cassandra.config": f"file://{home}/cassandra.yaml",
            "cassandra-rackdc.properties": f"file://{home}/cassandra-rackdc.properties",
            "logback.configurationFile": f"file://{home}/logback.xml",
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
            *("-Xms512m", "-Xmx512m", "-XX:MaxDirectMemorySize=256m", "-XX:+UseSerialGC"),
            *("-Xss512k", "-XX:TieredStopAtLevel=1", f"-javaagent:{agent}"),
            *(f"-D{name}={value}" for name, value in settings.items()),
            *(f"--add-exports={name}=ALL-UNNAMED" for name in _EXPORTS.split()),
            *(f"--add-opens={name}=ALL-UNNAMED" for name in _OPENS.split()),
            *("-cp", f"{folder}/*", "org.apache.cassandra.service.CassandraDaemon"),
        ]


def _die_with_the_parent() -> None:
    """A test's process that is killed takes its server with it, where the system can do that."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def free_port() -> int:
    """A port that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """A server in a directory that goes with it."""
    with tempfile.TemporaryDirectory(prefix="cassandra-") as directory:
        server = Server(Path(directory))
        server.start()
        try:
            yield server
        finally:
            server.stop()


def main(words: list[str]) -> None:
    """See above."""
    if words == ["install"]:
        install()
        print(f"Cassandra {VERSION} in {jars()}")
    elif words == ["run"]:
        with running() as server, contextlib.suppress(KeyboardInterrupt):
            print(server.url, flush=True)
            signal.pause()
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
