"""Where benchmark results go: one JSON row a run, with the machine it ran on."""

import json
import os
import platform
import time
from pathlib import Path

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
        print(f"{name:36} {value:.4g}" if isinstance(value, float) else f"{name:36} {value}")
