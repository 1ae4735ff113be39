"""Measures what it costs an import that others are told of it, and are stuck; and what it costs an idle daemon.

    python benchmarks/outlets.py [--files 4000] [--rounds 3] [--idle 30]

A library is imported by a daemon that tells nobody, by one whose hook's program never ends, by one whose hook's server
takes the connection and never answers, by one that is asked by clients that say half of what they want or do not read
the answer, and by one with all of that: in turn, several times. The rate counts from the start of the daemon; the CPU
time is that of all its processes. For each the median of the rounds, as a share of the plain daemon's.
"""

import argparse
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from daemon import Daemon, until
from library import write_library
from tests.support.http_endpoints import ask

CLIENTS = 10
SETTINGS = {"SOULSPOT_ON_BATCH__QUIET": "0", "SOULSPOT_ON_BATCH__TIMEOUT": "3600"}


@contextmanager
def dead_server() -> Iterator[str]:
    """Yield the URL of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"


@contextmanager
def stuck_clients(place: Path) -> Iterator[None]:
    """Keep clients at a socket: half of them never end their question, the others do not read the answer."""
    over = threading.Event()

    def be_stuck(words: bytes) -> None:
        while not over.is_set():
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(0.5)
                try:
                    client.connect(str(place))
                    client.sendall(words)
                    while not over.wait(0.5) and client.send(b"X" if words.endswith(b" ") else b"") is not None:
                        pass
                except OSError:
                    over.wait(0.1)

    questions = [b"GET /metrics HTTP/1.1\r\nHost: ", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"]
    threads = [threading.Thread(target=be_stuck, args=[questions[number % 2]]) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def import_once(library: Path, files: int, wanted: frozenset[str]) -> tuple[float, float]:
    """Return files a second, and seconds of CPU time."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=os.environ.get("SCRATCH"))))
        settings = dict(SETTINGS)
        if "command" in wanted:
            settings["SOULSPOT_ON_BATCH__COMMAND"] = '["sleep", "3600"]'
        if "server" in wanted:
            settings["SOULSPOT_ON_BATCH__URL"] = stack.enter_context(dead_server())
        if "scrapers" in wanted:
            settings["SOULSPOT_METRICS__LISTEN"] = str(place / "metrics.socket")
            stack.enter_context(stuck_clients(place / "metrics.socket"))
        daemon = Daemon(place, library, SOULSPOT_LOG__LEVEL="info", **settings)
        began = time.monotonic()
        daemon.start()
        try:
            assert until(lambda: daemon.count() >= files, 600, every=0.05)
            return files / (time.monotonic() - began), cpu_seconds(daemon)
        finally:
            daemon.stop()


def cpu_seconds(daemon: Daemon) -> float:
    """Return the CPU time of a daemon and of all its processes, those that have ended too."""
    own = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return daemon.cpu_seconds() + sum(map(int, own[13:15])) / os.sysconf("SC_CLK_TCK")


KINDS = {
    "nobody is told": frozenset[str](),
    "a program that never ends": frozenset({"command"}),
    "a server that never answers": frozenset({"server"}),
    f"{CLIENTS} stuck scrapers": frozenset({"scrapers"}),
    "all of these": frozenset({"command", "server", "scrapers"}),
}


def measure_imports(files: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="soulspot-outlets-", dir=os.environ.get("SCRATCH")) as place:
        library = Path(place) / "music"
        write_library(library, files, cover_share=0)
        import_once(library, files, frozenset())  # the library is in the page cache for each of the others
        found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
        for _round in range(rounds):
            for kind, wanted in KINDS.items():
                found[kind].append(import_once(library, files, wanted))
    plain = found["nobody is told"]
    for kind, results in found.items():
        rate, cpu = (statistics.median(each) for each in zip(*results, strict=True))
        shares = [
            statistics.median(own[which] / other[which] for own, other in zip(results, plain, strict=True))
            for which in (0, 1)
        ]
        print(f"{kind:<28} {rate:6.0f} files/s ({shares[0]:.3f} x)  {cpu:6.2f} s of CPU ({shares[1]:.3f} x)")


def measure_idle(seconds: float) -> None:
    """Measure an idle daemon without and with metrics on a socket that nobody asks, and after one that asked."""
    asks: dict[str, Callable[[Path], object] | None] = {
        "nothing": None, "metrics": lambda _place: None, "metrics, scraped once": lambda place: ask(place, "/metrics")
    }  # fmt: skip
    for kind, scrape in asks.items():
        with tempfile.TemporaryDirectory(prefix="soulspot-outlets-", dir=os.environ.get("SCRATCH")) as place:
            listen = Path(place) / "metrics.socket"
            settings = {"SOULSPOT_METRICS__LISTEN": str(listen)} if scrape is not None else {}
            daemon = Daemon(Path(place), None, **settings)
            daemon.start()
            if scrape is not None:
                scrape(listen)
            time.sleep(8)
            before, began = daemon.cpu_seconds(), time.monotonic()
            time.sleep(seconds)
            share, memory = (daemon.cpu_seconds() - before) / (time.monotonic() - began), daemon.pss_megabytes()
            daemon.stop()
        print(f"{kind:<28} {share:6.2%} of a core, {memory:.1f} MB PSS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle", type=float, default=30.0)
    arguments = parser.parse_args()
    if arguments.files:
        measure_imports(arguments.files, arguments.rounds)
    if arguments.idle:
        measure_idle(arguments.idle)


if __name__ == "__main__":
    main()
