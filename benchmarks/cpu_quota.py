"""Compute threads and speed of training under CPU quotas.

    python -m benchmarks.cpu_quota --image image-classifier-train
    sudo .venv/bin/python -m benchmarks.cpu_quota --before ../earlier

A short training of `small` on drawn hands runs under quotas of 0.5 and 1 CPU and without a quota:
in a container of `--image`, else as a process in a cgroup, which needs root. Printed are
the compute threads (those that used at least 0.3 s of CPU time; of a container, the number in its
log) and the images per second of the last epoch.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.conditions import ROOT, print_results
from benchmarks.equal_training import Checkout, make_hands, write_job
from benchmarks.job import environment

CGROUPS = Path("/sys/fs/cgroup")
GROUP = "image-classifier-benchmark"
PERIOD_MICROSECONDS = 100_000
COMPUTE_SECONDS = 0.3
QUOTAS = (0.5, 1.0, None)

HYPERPARAMETERS = {
    "network": "small",
    "image_size": "64",
    "epochs": "2",
    "batch_size": "32",
    "precision": "float32",
    "quantize": "none",
    "debug": "off",
}


def main() -> None:
    """Measure; print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--image", help="container image of training")
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    arguments = parser.parse_args()
    checkouts = {"after": Checkout(ROOT)}
    if arguments.before:
        checkouts["before"] = Checkout(arguments.before.resolve())
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        hands = make_hands(Path(scratch, "hands"))
        for name, checkout in checkouts.items():
            for quota in QUOTAS:
                base_dir = write_job(Path(scratch, f"{name}-{quota}"), hands, HYPERPARAMETERS)
                if arguments.image:
                    log, threads = run_container(arguments.image, base_dir, hands, quota), None
                else:
                    log, threads = run_process(checkout, base_dir, quota)
                if found := re.search(r"^cpu_threads=(\d+)", log, re.MULTILINE):
                    threads = int(found[1]) if threads is None else threads
                speed = float(re.findall(r"images_per_second=(\S+)", log)[-1])
                row = {"code": name, "quota": quota, "threads": threads, "images_per_second": speed}
                results.append(row)
                print(
                    f"{name:<7} quota {quota or 'none':<5} {threads} threads {speed:7.1f} images/s"
                )
    print_results(["torch"], results=results)


def run_container(image: str, base_dir: Path, data: Path, quota: float | None) -> str:
    """Train in a container; return its log."""
    limit = [] if quota is None else [f"--cpus={quota}"]
    volumes = [f"--volume={base_dir}:/opt/ml", f"--volume={data}:{data}"]
    command = ["docker", "run", "--rm", *limit, *volumes, image, "train"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout


def run_process(checkout: Checkout, base_dir: Path, quota: float | None) -> tuple[str, int]:
    """Train in a cgroup; return the log and the number of compute threads."""
    seconds: dict[str, float] = {}
    log = base_dir / "log"
    with limited(quota) as prefix, log.open("w") as file:
        module, directory = checkout.program("training")
        with subprocess.Popen(
            [*prefix, sys.executable, "-m", module, "train"],
            cwd=directory,
            env=environment(base_dir),
            stdout=file,
            stderr=subprocess.STDOUT,
        ) as process:
            while process.poll() is None:
                seconds |= cpu_seconds(process.pid)
                time.sleep(0.1)
    text = log.read_text(encoding="utf-8")
    if process.returncode:
        sys.exit(text)
    return text, sum(each >= COMPUTE_SECONDS for each in seconds.values())


@contextmanager
def limited(quota: float | None) -> Iterator[list[str]]:
    """Yield the start of a command that runs in a cgroup with the quota and sees it as the root."""
    if quota is None:
        yield []
        return
    is_v2 = (CGROUPS / "cgroup.controllers").exists()
    root = CGROUPS if is_v2 else CGROUPS / "cpu"
    group = root / GROUP
    group.mkdir()
    try:
        microseconds = int(quota * PERIOD_MICROSECONDS)
        if is_v2:
            (group / "cpu.max").write_text(f"{microseconds} {PERIOD_MICROSECONDS}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_MICROSECONDS))
            (group / "cpu.cfs_quota_us").write_text(str(microseconds))
        script = f'echo $$ > {group}/cgroup.procs && mount --bind {group} {root} && exec "$@"'
        yield ["unshare", "--mount", "sh", "-c", script, "sh"]
    finally:
        group.rmdir()


def cpu_seconds(pid: int) -> dict[str, float]:
    """Return the CPU time of each thread of a process."""
    found = {}
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            # It has ended.
            continue
        # utime and stime, fields 14 and 15 of proc(5).
        found[path.parent.name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


if __name__ == "__main__":
    main()
