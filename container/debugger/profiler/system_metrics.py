"""System metrics, sampled every half second into SageMaker's files."""

import contextlib
import json
import logging
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import psutil

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 0.5

Sample = tuple[str, str, str, float]
"""Type, name, dimension and value, as in SageMaker's lines."""


class SystemSampler(threading.Thread):
    """A thread that writes system metrics until it is stopped."""

    def __init__(self, directory: Path, node: str, interval_seconds: float) -> None:
        """Write below `directory`, under the name of a `node` such as algo-1."""
        super().__init__(name="profiler", daemon=True)
        self._directory, self._node, self._interval = directory, node, interval_seconds
        self._is_stopping = threading.Event()

    def stop(self) -> None:
        """Stop sampling; does not wait for a disk that hangs."""
        self._is_stopping.set()
        if self.is_alive():
            self.join(timeout=5)

    def write(self, now: float, samples: list[Sample]) -> None:
        """Append samples taken at `now` seconds since the epoch."""
        minute = int(now) // 60 * 60
        folder = self._directory / "system" / "incremental" / hour(now)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{minute}.{self._node}.json").open("a", encoding="utf-8") as file:
            for kind, name, dimension, value in samples:
                line = {
                    "Type": kind,
                    "Name": name,
                    "Dimension": dimension,
                    "Value": round(value, 3),
                    "NodeId": self._node,
                    "Timestamp": round(now, 3),
                }
                file.write(json.dumps(line) + "\n")

    def run(self) -> None:
        """Sample until `stop` is called."""
        try:
            with contextlib.closing(_gpus()) as gpus:
                samplers = [_cpus_and_memory(), _rates(), gpus]
                while not self._is_stopping.wait(self._interval):
                    self.write(time.time(), [s for sampler in samplers for s in next(sampler, [])])
        except Exception as error:  # noqa: BLE001 - the training continues after any error
            logger.warning("debugger: sampling of system metrics has stopped: %s", error)


def hour(seconds: float) -> str:
    """Return the folder of an hour, in UTC."""
    return time.strftime("%Y%m%d%H", time.gmtime(seconds))


def _cpus_and_memory() -> Iterator[list[Sample]]:
    # The first call only sets the start of the interval.
    psutil.cpu_times_percent(percpu=True)
    while True:
        samples = []
        for number, times in enumerate(psutil.cpu_times_percent(percpu=True)):
            waiting = getattr(times, "iowait", 0.0)
            used = max(0.0, 100.0 - times.idle - waiting)
            samples += [
                ("cpu", f"cpu{number}", "CPUUtilization", used),
                ("cpu", f"cpu{number}", "I/OWaitPercentage", waiting),
            ]
        yield [*samples, ("memory", "MemoryUsedPercent", "", psutil.virtual_memory().percent)]


def _rates() -> Iterator[list[Sample]]:
    """Yield the rates of disk and network per second since the last sample."""
    before, then = _counters(), time.monotonic()
    while True:
        after, now = _counters(), time.monotonic()
        seconds = max(now - then, 1e-3)
        rates = {key: (after[key] - before.get(key, 0)) / seconds for key in after}
        before, then = after, now
        yield [(*key, max(0.0, rate)) for key, rate in rates.items()]


def _counters() -> dict[tuple[str, str, str], float]:
    found: dict[tuple[str, str, str], float] = {}
    # Some containers have no counters.
    with contextlib.suppress(Exception):
        disk = psutil.disk_io_counters()
        if disk is not None:
            found["i/o", "IOPS", ""] = disk.read_count + disk.write_count
            found["i/o", "ReadThroughputInBytesPerSecond", ""] = disk.read_bytes
            found["i/o", "WriteThroughputInBytesPerSecond", ""] = disk.write_bytes
    with contextlib.suppress(Exception):
        network = psutil.net_io_counters()
        if network is not None:
            found["network", "ReceiveBytesPerSecond", "Algorithm"] = network.bytes_recv
            found["network", "TransmitBytesPerSecond", "Algorithm"] = network.bytes_sent
    return found


def _gpus() -> Generator[list[Sample], None, None]:
    """Yield the use of NVIDIA's GPUs; nothing without the library, the driver or a GPU."""
    try:
        import pynvml  # noqa: PLC0415

        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(count)]
    except Exception:  # noqa: BLE001 - each cause has its own exception
        return
    try:
        while True:
            samples: list[Sample] = []
            for number, handle in enumerate(handles):
                used = pynvml.nvmlDeviceGetUtilizationRates(handle)
                memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
                percent = 100 * memory.used / memory.total
                samples += [
                    ("gpu", f"gpu{number}", "GPUUtilization", float(used.gpu)),
                    ("gpu", f"gpu{number}", "GPUMemoryUtilization", percent),
                ]
            yield samples
    finally:
        pynvml.nvmlShutdown()
