"""Exact accuracy: ten thousand dimensions, and the paper's map; against a (d, d) eigenproblem in the same run.

Run with: python benchmarks/theory.py
"""

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from unlearnable.theory.gaussian_mixture import clean_accuracy, convolution_matrix
from unlearnable.theory.tables import flat_mean


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Return the processor time of the shortest of some runs, on one thread: other work does not count."""
    times = []
    with threadpool_limits(1):
        for _ in range(repeats):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
    return min(times)


def grid(d: int, points: int) -> None:
    """Compute every pair of the map, without using its symmetry."""
    mu, values = flat_mean(d, 2.5), np.linspace(0, 0.5, points)
    for low in values:
        for high in values:
            clean_accuracy(mu, float(low), float(high))


def main() -> None:
    """Measure, print, and append a row to the results."""
    large = {f"{a:g}": seconds(lambda a=a: clean_accuracy(flat_mean(10_000, 5), 0.0, a)) for a in (0.05, 0.3, 0.5)}
    mu = flat_mean(500, 5)
    sine = seconds(lambda: clean_accuracy(mu, 0.1, 0.2))
    dense = seconds(lambda: clean_accuracy(mu, convolution_matrix([0.1, 1, 0.1], 500), [0.2, 1, 0.2]))
    row = {
        "benchmark": "theory",
        "d10000_processor_seconds": {key: round(value, 3) for key, value in large.items()},
        "map_51x51_d100_processor_seconds": round(seconds(lambda: grid(100, 51), repeats=1), 2),
        "dense_over_sine_d500": round(dense / sine, 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    print(json.dumps(row, indent=1))
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    with (results / "theory.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
