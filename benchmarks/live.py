"""Measures the live events: how soon they arrive, what stuck subscribers cost an import, what the idle socket costs.

    python benchmarks/live.py [--drops 200] [--stuck 10 --files 2000 --rounds 3] [--idle 30]

--drops prints p50, p95 and p99 from the rename of a file to its line in the stream of `soulspot top`, and in
`soulspot audit --follow`. --stuck imports the same files with and without subscribers that never read, by turns, and
prints the ratios of the rates and of the CPU times; a busy machine disturbs the latter less. --idle compares a daemon
that has a control socket with one that has none.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack

from daemon import Daemon, run_in, running, scratch, song, until
from latency import figures


def ask(daemon: Daemon, question: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(f"{daemon.database}.socket")
    connection.sendall(json.dumps({"ask": question}).encode() + b"\n")
    return connection


def record(lines: Iterable[str | bytes], seen: dict[str, float]) -> None:
    """Record when each path was first read."""
    for line in lines:
        now = time.monotonic()
        message = json.loads(line)
        for each in message.get("happened", [message]):
            if path := each.get("path"):
                seen.setdefault(path, now)


def drop_latencies(daemon: Daemon, seen: dict[str, float], drops: int) -> tuple[list[float], int]:
    content, latencies, missed = song(), [], 0
    for number in range(drops):
        path = daemon.music / f"{len(seen)}-{number}.mp3"
        path.with_suffix(".part").write_bytes(content)
        path.with_suffix(".part").rename(path)
        renamed = time.monotonic()
        if until(lambda: str(path) in seen, 5, every=0.001):  # noqa: B023 - at once
            latencies.append((seen[str(path)] - renamed) * 1000)
        else:
            missed += 1
        time.sleep(0.05)
    return latencies, missed


def measure_drops(drops: int) -> None:
    with running() as daemon:
        streamed: dict[str, float] = {}
        stream = ask(daemon, "live")
        threading.Thread(target=record, args=(stream.makefile("rb"), streamed), daemon=True).start()
        print(
            figures(f"{drops} drops, rename to line in the stream", *drop_latencies(daemon, streamed, drops)),
            flush=True,
        )
        stream.close()
        followed: dict[str, float] = {}
        command = [sys.executable, "-m", "soulspot", "audit", "--follow", "--json"]
        follower = subprocess.Popen(command, env=daemon.environment, stdout=subprocess.PIPE)
        assert follower.stdout is not None
        threading.Thread(target=record, args=(follower.stdout, followed), daemon=True).start()
        (daemon.music / "first.mp3").write_bytes(song())
        until(lambda: followed, 10)
        print(figures(f"{drops} drops, rename to line of audit --follow", *drop_latencies(daemon, followed, drops)))
        follower.terminate()
        follower.wait()


def import_with(stuck: int, files: int) -> tuple[float, float]:
    """Return files a second and CPU seconds of an import while `stuck` subscribers do not read."""
    content = song()
    with running() as daemon, ExitStack() as clients:
        library = daemon.music.parent / "library"
        for number in range(files):
            folder = library / f"artist {number // 200}" / f"album {number // 10}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.mp3").write_bytes(content)
        for _number in range(stuck):
            clients.enter_context(ask(daemon, "follow"))
        time.sleep(1)
        before, began = daemon.cpu_seconds(), time.monotonic()
        library.rename(daemon.music / "library")
        until(lambda: daemon.count() >= files, 300, every=0.05)
        return files / (time.monotonic() - began), daemon.cpu_seconds() - before


def measure_stuck(stuck: int, files: int, rounds: int) -> None:
    import_with(0, min(files, 500))  # warms the page cache
    found: dict[int, list[tuple[float, float]]] = {0: [], stuck: []}
    for number in range(rounds):
        for clients in (0, stuck) if number % 2 else (stuck, 0):
            found[clients].append(import_with(clients, files))
            rate, cpu = found[clients][-1]
            print(f"{files} files with {clients} stuck subscribers: {rate:.0f} files/s, {cpu:.2f} s of CPU", flush=True)
    rate = statistics.median(rate for rate, _cpu in found[stuck]) / statistics.median(rate for rate, _cpu in found[0])
    cpu = statistics.median(cpu for _rate, cpu in found[stuck]) / statistics.median(cpu for _rate, cpu in found[0])
    print(f"{stuck} stuck subscribers: {rate:.3f} x the rate and {cpu:.3f} x the CPU time of none")


def idle_with(seconds: float, *, without_socket: bool) -> tuple[float, float]:
    with ExitStack() as stack:
        place = stack.enter_context(scratch())
        if without_socket:  # a daemon whose socket's path is a folder runs without one
            (place / "soulspot.db.socket").mkdir()
        daemon = stack.enter_context(run_in(place))
        time.sleep(3)
        before, began = daemon.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        return (daemon.cpu_seconds() - before) / (time.monotonic() - began), daemon.pss_megabytes()


def measure_idle(seconds: float) -> None:
    with_socket, without = (idle_with(seconds, without_socket=each) for each in (False, True))
    for name, (share, memory) in (("with a control socket", with_socket), ("without", without)):
        print(f"idle {name}: {share:.2%} of a core over {seconds:g} s, {memory:.1f} MB PSS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drops", type=int, default=0)
    parser.add_argument("--stuck", type=int, default=0)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle", type=float, default=0)
    arguments = parser.parse_args()
    if arguments.drops or not (arguments.stuck or arguments.idle):
        measure_drops(arguments.drops or 200)
    if arguments.stuck:
        measure_stuck(arguments.stuck, arguments.files, arguments.rounds)
    if arguments.idle:
        measure_idle(arguments.idle)


if __name__ == "__main__":
    main()
