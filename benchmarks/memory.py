"""Peak memory: of parent and workers with 1,000 and with 50,000 pictures, and of a worker with a very large one.

    uv run benchmarks/memory.py CIFAR_TRAIN

CIFAR_TRAIN: 50,000 small pictures in class folders. Peaks are the kernel's own (VmHWM), read while the work goes on.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image
from rows import append

SCRIPT = """
import sys, unlearnable
unlearnable.protect(sys.argv[1], sys.argv[2], key=unlearnable.Key(bytes(32)), workers=int(sys.argv[3]))
"""


def peak(pid: int) -> int:
    """Return the most memory a process has held so far, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def watch(process: subprocess.Popen[bytes], peaks: dict[int, int]) -> None:
    while process.poll() is None:
        listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()  # noqa: S607
        for pid in (process.pid, *map(int, listed)):
            try:
                peaks[pid] = max(peaks.get(pid, 0), peak(pid))
            except OSError:
                continue
        time.sleep(0.05)


def run(source: Path, workers: int) -> tuple[float, float]:
    """Protect a folder; return the peaks of the parent and of its largest worker, in MB."""
    with tempfile.TemporaryDirectory() as out:
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, source, f"{out}/protected", str(workers)])
        peaks: dict[int, int] = {}
        watcher = threading.Thread(target=watch, args=(process, peaks))
        watcher.start()
        if process.wait():
            raise SystemExit("protect failed")
        watcher.join()
        parent = peaks.pop(process.pid)
        return parent / 1e6, max(peaks.values()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    source = parser.parse_args().source
    with tempfile.TemporaryDirectory() as folder:
        few = Path(folder, "few")
        for path in sorted(source.glob("*/*"))[::50]:
            (few / path.parent.name).mkdir(parents=True, exist_ok=True)
            (few / path.parent.name / path.name).write_bytes(path.read_bytes())
        large = Path(folder, "large", "a")
        large.mkdir(parents=True)
        ramp = np.arange(10_000, dtype=np.uint32)
        pixels = np.stack([(ramp[:, None] // 40 + ramp // (30 + 10 * c)).astype(np.uint8) for c in range(3)], axis=2)
        Image.fromarray(pixels).save(large / "100 megapixels.jpg", quality=90)
        del pixels
        tiny = Path(folder, "tiny", "a")
        tiny.mkdir(parents=True)
        Image.new("RGB", (99, 99), "red").save(tiny / "a.jpg")
        parent_few, worker_few = run(few, 2)
        parent_many, worker_many = run(source, 2)
        _, worker_idle = run(tiny.parent, 1)
        _, worker_large = run(large.parent, 1)
    append(
        "memory",
        parent_mb_1000=parent_few,
        parent_mb_50000=parent_many,
        parent_growth=parent_many / parent_few,
        worker_mb_1000=worker_few,
        worker_mb_50000=worker_many,
        worker_growth=worker_many / worker_few,
        worker_mb_100_megapixels=worker_large,
        large_over_decoded=(worker_large - worker_idle) / 300,
    )


if __name__ == "__main__":
    main()
