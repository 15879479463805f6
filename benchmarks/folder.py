"""A folder of pictures, against the codec alone.

    uv run benchmarks/folder.py PHOTOS [--rounds 5]

The codec's limit: read, decode, encode and write the same pictures with the same library, settings and number of
worker processes, started the same way and warm, with nothing in between. Rounds of both take turns. JPEG in and JPEG
out; then the same pictures as PNG, in and out. ``ratio`` is of the times that passed; ``processor_ratio`` of the
processors' times that the workers took, which other work on the machine disturbs less.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

from PIL import Image
from rows import append

from unlearnable import Key
from unlearnable.pictures import codec
from unlearnable.pictures.manifest import Picture
from unlearnable.pipeline import _Context, _Job, _protect_one
from unlearnable.protections.convolution import Convolution
from unlearnable.workers import Pool, cores


def codec_alone(context: _Context, job: _Job) -> None:
    """Decode and encode, through Pillow alone, with the settings that protect would use."""
    with Image.open(job.source) as image:
        image.load()
        if image.format == "JPEG":
            kept = {name: image.info[name] for name in ("exif", "icc_profile", "dpi") if image.info.get(name)}
            settings = {n: codec._metadata(image, "JPEG")[n] for n in ("quality", "subsampling", "progressive")}
            image.save(job.target, "JPEG", **settings, **kept)
        else:
            image.save(job.target, image.format, compress_level=codec._COMPRESSION)


def processor_seconds(pool: Pool) -> float:
    """Return how long the workers have been at work, in their own and the system's code."""
    ticks = 0
    for worker in pool._workers:
        fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def compare(pictures: Path, rounds: int, repeat: int) -> dict[str, float]:
    import folder  # this file, under a name that workers can import it by

    names = sorted(os.listdir(pictures)) * repeat
    perturbation = Convolution().fit(SimpleNamespace(class_names=["all"]), Key(bytes(32)))
    out = Path(tempfile.mkdtemp())
    (out / "partial").mkdir()
    context = _Context(perturbation, "keep", None, str(out / "partial"))
    jobs = [
        _Job(
            Picture(n, name, name, "all", True, "pending", None, None, None), 0, str(pictures / name), str(out / f"{n}")
        )
        for n, name in enumerate(names)
    ]
    times: dict[str, list[float]] = {"protect": [], "codec": []}
    processor: dict[str, list[float]] = {"protect": [], "codec": []}
    with Pool(_protect_one, context, cores()) as ours, Pool(folder.codec_alone, context, cores()) as theirs:
        for _ in range(rounds + 1):
            for what, pool in (("codec", theirs), ("protect", ours)):
                start, busy = time.perf_counter(), processor_seconds(pool)
                for _ in pool.map(jobs, _Job.size):
                    pass
                times[what].append(time.perf_counter() - start)
                processor[what].append(processor_seconds(pool) - busy)
    shutil.rmtree(out)
    protecting, coding = (statistics.median(times[what][1:]) for what in ("protect", "codec"))  # the first warms up
    ours, theirs_alone = (statistics.median(processor[what][1:]) for what in ("protect", "codec"))
    return {
        "pictures_a_second": len(jobs) / protecting,
        "codec_pictures_a_second": len(jobs) / coding,
        "ratio": coding / protecting,
        "processor_ratio": theirs_alone / ours,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    jpeg = compare(arguments.photos, arguments.rounds, 2)
    with tempfile.TemporaryDirectory() as folder:
        for name in sorted(os.listdir(arguments.photos)):
            with Image.open(arguments.photos / name) as image:
                image.save(Path(folder, Path(name).stem + ".png"))
        png = compare(Path(folder), arguments.rounds, 1)
    append("folder", **{f"jpeg_{n}": v for n, v in jpeg.items()}, **{f"png_{n}": v for n, v in png.items()})


if __name__ == "__main__":
    main()
