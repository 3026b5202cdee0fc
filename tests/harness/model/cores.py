"""The same model on every core: a server and a process each, chunks of seeds handed out."""

import multiprocessing
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING

from harness.model.run import WIDTH, Verdict, missing, run_seeds
from harness.valkey import Valkey

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

_CHUNK = 2 * WIDTH
_REPORT_EVERY_S = 10
_ALL_BITE_FROM = 500  # with fewer seeds a rare fault may be absent
_port = 0


def _take_port(ports: "SimpleQueue[int]") -> None:
    global _port  # noqa: PLW0603 - one server per worker process, given at its start
    _port = ports.get()


def _chunk(seeds: range, steps: int) -> Verdict:
    return run_seeds(_port, seeds, steps=steps)


def model(first: int, count: int, steps: int, processes: int) -> int:
    """Run ``count`` seeds from ``first`` and return an exit code: 0 if nothing was violated and every fault bit."""
    total, began_s = Verdict(), time.monotonic()
    told_s = began_s
    context = multiprocessing.get_context("spawn")
    servers = [Valkey() for _ in range(processes)]
    ports: SimpleQueue[int] = context.SimpleQueue()
    for server in servers:
        ports.put(server.port)
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_take_port, initargs=(ports,))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else servers and processes outlive this one
    try:
        chunks = [range(at, min(at + _CHUNK, first + count)) for at in range(first, first + count, _CHUNK)]
        for done in as_completed([pool.submit(_chunk, chunk, steps) for chunk in chunks]):
            total.add(done.result())
            now_s = time.monotonic()
            if total.failures:
                break
            if now_s > told_s + _REPORT_EVERY_S:
                told_s = now_s
                print(f"model: {total.seeds}/{count} seeds, 0 violations, {now_s - began_s:.0f} s", flush=True)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for server in servers:  # what still runs loses its server and ends
            server.stop()
    return _tell(total, steps, time.monotonic() - began_s)


def _tell(total: Verdict, steps: int, took_s: float) -> int:
    if total.failures:
        print(total.failures[0].report())
    for kind, times in sorted(total.counts.items()):
        print(f"{times:>12,}  {kind}")
    print(f"model: {total.seeds} seeds of {steps} steps, {len(total.failures)} violations, {took_s:.0f} s")
    absent = missing(total) if total.seeds >= _ALL_BITE_FROM else []
    if absent:
        print(f"never happened: {', '.join(absent)}")
    return int(bool(total.failures or absent))
