"""Where benchmark results go: one JSON row a run, with the machine it ran on; and how rows are found again."""

import hashlib
import json
import math
import os
import platform
import signal
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import PIL

import unlearnable

_RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, object]:
    """Describe this machine, as far as it decides speed."""
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def append(benchmark: str, **figures: object) -> None:
    """Print a row and add it to ``results/BENCHMARK.jsonl``."""
    versions = {"unlearnable": unlearnable.__version__, "numpy": np.__version__, "pillow": PIL.__version__}
    row = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())} | figures
    row |= {"machine": machine(), "versions": versions}
    _RESULTS.mkdir(exist_ok=True)
    with (_RESULTS / f"{benchmark}.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    for name, value in figures.items():
        print(f"{name:36} {value:.4g}" if isinstance(value, float) else f"{name:36} {value}", flush=True)


def rows(benchmark: str) -> list[dict[str, Any]]:
    """Read the rows of a benchmark, oldest first."""
    file = _RESULTS / f"{benchmark}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def key(about: dict[str, Any]) -> str:
    """Name a run by everything that decides it."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def deadline(minutes: float) -> float:
    """Return when so many minutes are over, for :func:`stop_after`."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have it ignored by what they start with &
    return time.monotonic() + 60 * minutes


def stop_after(deadline: float) -> None:
    """Interrupt, as Ctrl-C does, once a deadline is past."""
    if time.monotonic() > deadline:
        signal.raise_signal(signal.SIGINT)


def spread(values: list[float]) -> str:
    """Word a mean and the half-width of its 95 % interval (Student)."""
    from scipy import stats  # here, since other benchmarks measure memory

    mean, n = statistics.mean(values), len(values)
    if n < 2:
        return f"{mean:.2f} (n=1)"
    half = stats.t.ppf(0.975, n - 1) * statistics.stdev(values) / math.sqrt(n)
    return f"{mean:.2f} ± {half:.2f} (n={n})"
