"""What making noise holds in memory: for a set, and for one ten times as large.

    uv run benchmarks/noise_memory.py CIFAR_TRAIN

Pictures are decoded into a file, as those of a set larger than half of the memory are, and noise is made in another;
both are mapped. Counted is what a process holds beside mapped files (RssAnon, at its highest, sampled): the system
takes pages of files back as it needs them. EM with one noise step and few steps of the surrogate, since how much work
goes into a batch decides nothing here; the set is CIFAR_TRAIN, and a tenth of it, of each class in turn.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

from rows import append

SCRIPT = """
import json, sys
from pathlib import Path
from unlearnable import Key
from unlearnable.pictures.dataset import load
from unlearnable.protections import protections
source, limit, state = sys.argv[1:]
method = protections.create("em", preset="fast", steps=20, noise_steps=1, samples=1)
data = load(source, limit=int(limit), in_memory=0)
noise = method.fit(data, Key(bytes(32)), state=Path(state))
print(json.dumps({"pictures": len(data), "mapped": data.images.nbytes + noise.patterns.nbytes}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="CIFAR_TRAIN")
    parser.add_argument("--pictures", type=int, default=50_000)
    options = parser.parse_args()
    few, small, _ = measured(options.source, options.pictures // 10)
    many, large, pictures = measured(options.source, options.pictures)
    append(
        "noise_memory",
        pictures=pictures,
        mapped_mb=large / 1e6,
        held_mb_of_a_tenth=few / 1e6,
        held_mb=many / 1e6,
        growth_mb=(many - few) / 1e6,
        growth_over_mapped=(many - few) / (large - small),
    )


def measured(source: Path, limit: int) -> tuple[int, int, int]:
    """Make noise in a process of its own: the bytes that it held at most, those that it mapped, and its pictures."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-c", SCRIPT, str(source), str(limit), f"{folder}/state"]
        environment = os.environ | {"XDG_CACHE_HOME": folder}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            over, highest = Event(), [0]
            watcher = Thread(target=watch, args=(process.pid, over, highest))
            watcher.start()
            said, _ = process.communicate()
            over.set()
            watcher.join()
        if process.returncode:
            raise SystemExit("making noise failed")
        about = json.loads(said)
        return highest[0], about["mapped"], about["pictures"]


def watch(pid: int, over: Event, highest: list[int]) -> None:
    """Note the most that a process holds beside mapped files, in bytes, until it is over."""
    while not over.wait(0.02):
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            return
        held = [int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")]
        highest[0] = max([highest[0], *held])


if __name__ == "__main__":
    main()
