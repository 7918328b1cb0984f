"""A small client of many connections: closed and open loops against a server on this machine.

It implements only a part of HTTP/1.1, so that a request costs about 50 microseconds: it shares
the cores with the server under measurement.
"""

import asyncio
import itertools
import math
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

HOST = "127.0.0.1"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

# The text after the class in a response. Only the class does not depend on concurrent requests.
PROBABILITY = b',"probability"'

# Time limit for the last responses of an open loop.
LINGER_SECONDS = 30.0


@dataclass(slots=True)
class Sample:
    """Responses of a measurement."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    """0 counts broken connections."""

    latencies: list[float] = field(default_factory=list)
    """Of the responses with status 200, in milliseconds."""

    answers: Counter[tuple[int, bytes]] = field(default_factory=Counter)
    """Of the responses with status 200: the hash of the request, the class, and their number."""

    def summary(self) -> dict[str, float]:
        """Return responses a second, percentiles, and the numbers of rejections and errors."""
        ordered = sorted(self.latencies) or [float("nan")]
        return {
            "per_second": len(self.latencies) / self.seconds,
            "p50": statistics.median(ordered),
            "p99": ordered[math.ceil(0.99 * len(ordered)) - 1],
            "refused": self.statuses[503],
            "errors": sum(self.statuses.values()) - self.statuses[200] - self.statuses[503],
        }


class Connection:
    """A connection that is reopened after it broke."""

    def __init__(self, port: int) -> None:
        """Connect later, at the first request."""
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes, sample: Sample) -> None:
        """Send a request and record its response."""
        start = time.perf_counter()
        try:
            status, body = await self._exchange(request)
        except (OSError, EOFError):
            status, body = 0, b""
            self.close()
            await asyncio.sleep(0.01)
        sample.statuses[status] += 1
        if status == 200:  # noqa: PLR2004  HTTP's OK
            sample.latencies.append(1000 * (time.perf_counter() - start))
            sample.answers[hash(request), body.partition(PROBABILITY)[0]] += 1

    def close(self) -> None:
        """Close the connection without waiting."""
        if self._streams:
            self._streams[1].close()
        self._streams = None

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(HOST, self._port)
        reader, writer = self._streams
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        body = await reader.readexactly(int(length[1]) if length else 0)
        if b"\r\nconnection: close" in head.lower():
            self.close()
        return int(head[9:12]), body


def invocations(bodies: Sequence[bytes]) -> Iterator[bytes]:
    """Return an endless sequence of requests with one image each."""
    head = "POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: "
    requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
    return itertools.cycle(requests)


async def closed_loop(
    port: int, requests: Iterator[bytes], *, clients: int, seconds: float
) -> Sample:
    """Send a request from each client as soon as its previous one is answered."""
    sample = Sample()
    start = time.perf_counter()

    async def send_repeatedly() -> None:
        connection = Connection(port)
        while time.perf_counter() < start + seconds:
            await connection.ask(next(requests), sample)
        connection.close()

    await asyncio.gather(*(send_repeatedly() for _ in range(clients)))
    sample.seconds = time.perf_counter() - start
    return sample


async def open_loop(port: int, requests: Iterator[bytes], *, rate: float, seconds: float) -> Sample:
    """Send at a fixed rate, independent of responses, on idle connections or new ones."""
    sample = Sample()
    free: list[Connection] = []
    start = time.perf_counter()

    async def ask() -> None:
        connection = free.pop() if free else Connection(port)
        await connection.ask(next(requests), sample)
        free.append(connection)

    tasks = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(ask()))
    _, unanswered = await asyncio.wait(tasks, timeout=LINGER_SECONDS)
    sample.statuses[0] += len(unanswered)
    for task in unanswered:
        task.cancel()
    # Up to the last response: otherwise time in the queue would not be counted.
    sample.seconds = time.perf_counter() - start
    for connection in free:
        connection.close()
    return sample


async def pings(port: int, stop: asyncio.Event, interval: float = 0.5) -> list[float]:
    """Request /ping on new connections until `stop`; return seconds, infinite for failures."""
    taken = []
    while not stop.is_set():
        sample, connection, start = Sample(), Connection(port), time.perf_counter()
        await connection.ask(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n", sample)
        connection.close()
        taken.append(time.perf_counter() - start if sample.latencies else float("inf"))
        await asyncio.sleep(interval)
    return taken
