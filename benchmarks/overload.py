"""Measure a server under overload.

Closed loops of 8, 1, 32 and 256 clients, an open loop at three times the peak of 8 clients, and one
at 70 % of it. The last three run for the given time.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from benchmarks import load

Row: TypeAlias = dict[str, float]


async def flood(port: int, requests: Iterator[bytes], seconds: float) -> Mapping[str, Row]:
    """Measure the peak, then send more and fewer requests than that."""
    results = {}
    first = await load.closed_loop(port, requests, clients=8, seconds=10)
    lone = await load.closed_loop(port, requests, clients=1, seconds=5)
    several = await load.closed_loop(port, requests, clients=32, seconds=10)
    results["8 clients"] = peak = first.summary()
    results["1 client"] = alone = lone.summary()
    results["32 clients"] = several.summary()
    rate = peak["per_second"]
    # Concurrency can change a class in bfloat16, so each class seen without overload is correct.
    expected = set(first.answers) | set(lone.answers) | set(several.answers)
    known = {request for request, _ in expected}
    for name, loop in (
        ("256 clients", load.closed_loop(port, requests, clients=256, seconds=seconds)),
        ("3 x peak", load.open_loop(port, requests, rate=3 * rate, seconds=seconds)),
        ("70 % of peak", load.open_loop(port, requests, rate=0.7 * rate, seconds=seconds)),
    ):
        stop = asyncio.Event()
        pinging = asyncio.create_task(load.pings(port, stop))
        before = time.process_time()
        sample = await loop
        generating = (time.process_time() - before) / sample.seconds
        after = load.Sample()
        await load.Connection(port).ask(next(requests), after)
        stop.set()
        results[name] = sample.summary() | {
            "wrong": sum(
                number
                for answer, number in sample.answers.items()
                if answer[0] in known and answer not in expected
            ),
            "of peak": len(sample.latencies) / sample.seconds / rate,
            "slowest ping": max(await pinging),
            "next after": after.latencies[0] / 1000 if after.latencies else float("inf"),
            "p99 of p50 alone": sample.summary()["p99"] / alone["p50"],
            "processors of the generator": generating,
        }
    return results
