"""Measures what hooks and metrics cost: an import while their receivers are stuck, and an idle daemon.

    python benchmarks/outlets.py [--files 4000] [--rounds 3] [--idle 30]

Imports a library, by turns, with five daemons: a plain one; one whose hook command never ends; one whose hook URL
accepts the connection and never answers; one whose scrapers send half a request or never read the response; and one
with all of that. The rate counts from the start of the daemon; the CPU time is that of all its processes. Prints the
medians of the rounds, and their ratio to the plain daemon. --idle compares idle daemons with and without metrics.
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
    """Yield the URL of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"


@contextmanager
def stuck_clients(place: Path) -> Iterator[None]:
    """Keep scrapers connected to a socket: half never finish their request, the others never read the response."""
    over = threading.Event()

    def be_stuck(request: bytes) -> None:
        while not over.is_set():
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(0.5)
                try:
                    client.connect(str(place))
                    client.sendall(request)
                    while not over.wait(0.5) and client.send(b"X" if request.endswith(b" ") else b"") is not None:
                        pass
                except OSError:
                    over.wait(0.1)

    requests = [b"GET /metrics HTTP/1.1\r\nHost: ", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"]
    threads = [threading.Thread(target=be_stuck, args=[requests[number % 2]]) for number in range(CLIENTS)]
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
    """Return the CPU time of a daemon and all its processes, including those that have ended."""
    own = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return daemon.cpu_seconds() + sum(map(int, own[13:15])) / os.sysconf("SC_CLK_TCK")


KINDS = {
    "plain": frozenset[str](),
    "hook command never ends": frozenset({"command"}),
    "hook URL never answers": frozenset({"server"}),
    f"{CLIENTS} stuck scrapers": frozenset({"scrapers"}),
    "all of these": frozenset({"command", "server", "scrapers"}),
}


def measure_imports(files: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="soulspot-outlets-", dir=os.environ.get("SCRATCH")) as place:
        library = Path(place) / "music"
        write_library(library, files, cover_share=0)
        import_once(library, files, frozenset())  # warms the page cache
        found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
        for _round in range(rounds):
            for kind, wanted in KINDS.items():
                found[kind].append(import_once(library, files, wanted))
    plain = found["plain"]
    for kind, results in found.items():
        rate, cpu = (statistics.median(each) for each in zip(*results, strict=True))
        shares = [
            statistics.median(own[which] / other[which] for own, other in zip(results, plain, strict=True))
            for which in (0, 1)
        ]
        print(f"{kind:<28} {rate:6.0f} files/s ({shares[0]:.3f} x)  {cpu:6.2f} s of CPU ({shares[1]:.3f} x)")


def measure_idle(seconds: float) -> None:
    """Measure an idle daemon without metrics, with metrics, and with metrics that were scraped once."""
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
