"""How a run comes by the strengths that its quality budget allows: from a sample of the owner's own pictures."""

import contextlib
import heapq
import math
from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.errors import expected
from unlearnable.fitting import Names, canvas, check_distinct, check_learnable, decoded
from unlearnable.keys import Key
from unlearnable.pictures import codec
from unlearnable.pictures.dataset import seen
from unlearnable.pictures.folder import Folder
from unlearnable.pictures.manifest import Manifest, speaking
from unlearnable.pictures.samples import Samples
from unlearnable.pictures.source import Containers, class_order, payloads
from unlearnable.protections.base import Protection
from unlearnable.protections.convolution import ReferenceSeed
from unlearnable.protections.error_minimizing import AdditiveNoise
from unlearnable.protections.masking import masked
from unlearnable.protections.noise import Noise
from unlearnable.protections.quality_budget import LIMITS, MEASUREMENTS, promised, strongest
from unlearnable.protections.stack import Stack
from unlearnable.workers import cores

_PICTURES: Final = 256  # in a sample, at most
_SAMPLES: Final = 2**28  # of all their channels that are held in memory; one picture may be larger


@dataclass(frozen=True)
class Sampled:
    """One picture of a sample, and its place in the key's secret order."""

    rank: bytes
    id: str
    label: str
    pixels: Samples


def settled(
    protection: Protection,
    pictures: Folder | Containers,
    key: Key | ReferenceSeed,
    record: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Protection:
    """Return a protection as it is fitted: a stack with a budget at the greatest strengths that meet it.

    record: the manifest. A run that it records goes on with the strengths that it has, whatever was added since.
    progress: called with pictures measured and, at most, to be measured.

    Raises InputError for a budget that cannot be met.
    """
    if not isinstance(protection, Stack) or not (budget := protection.budget):
        return protection
    assert isinstance(key, Key)  # noqa: S101 - reference seeds are for CUDA
    unlimited = replace(protection, **dict.fromkeys(budget))
    if record is not None and Manifest.begun(record):
        with speaking(record), Manifest.open(record) as book, contextlib.suppress(KeyError):
            if book.about("asked") == protection.parameters():
                return Stack(**book.about("parameters"))
        return unlimited  # the manifest says what differs
    counts = Counter(entry.label for entry, _ in pictures.scan() if entry.error is None)
    names = class_order(pictures, counts)
    check_distinct(names)
    if unlimited.made is not None:
        check_learnable(counts)
    sample = sampled(pictures, key)
    side = None if unlimited.made is None else canvas(unlimited.made, pictures)
    done, total = 0, MEASUREMENTS * len(sample)

    def measure(stack: Stack) -> dict[str, float]:
        nonlocal done
        found = []
        for values in qualities(stack, budget, names, key, sample, side):
            found.append(values)
            done += 1
            if progress is not None:
                progress(min(done, total), total)
        by_limit = zip(budget, zip(*found, strict=True), strict=True)
        return {name: promised(values, counts.total(), LIMITS[name]) for name, values in by_limit}

    found = strongest(unlimited, budget, measure)
    if progress is not None:
        progress(total, total)
    return found


def sampled(pictures: Folder | Containers, key: Key) -> Sequence[Sampled]:
    """Draw pictures that can be read: as many as come first in the key's secret order, and fit into the memory.

    Raises InputError where none can be read.
    """
    found = (entry for entry, _ in pictures.scan() if entry.error is None)
    ranked = ((key.rank("quality", entry.id), number, entry) for number, entry in enumerate(found))
    chosen = sorted(heapq.nsmallest(_PICTURES, ranked), key=lambda one: one[1])  # containers are read in their order
    held: list[Sampled] = []
    for entry, payload in payloads(pictures, (entry for _, _, entry in chosen)):
        with contextlib.suppress(codec.PictureError, OSError):
            new = Sampled(key.rank("quality", entry.id), entry.id, entry.label, decoded(payload))
            insort(held, new, key=attrgetter("rank"))
        while len(held) > 1 and sum(one.pixels.size for one in held) > _SAMPLES:
            held.pop()
    if not held:
        raise expected("pictures that can be read", f"none in {pictures.root}", "check the files")
    return held


def qualities(
    stack: Stack,
    budget: Iterable[str],
    names: Sequence[str],
    key: Key,
    sample: Sequence[Sampled],
    side: int | None = None,
) -> Iterator[list[float]]:
    """Measure what a stack leaves of each picture of a sample: what each entry of a budget limits, in their order.

    side: of the canvas of a layer whose noise is made from the pictures. Random signs stand in for that noise, which
    would take a training for each strength: as loud as it can be at most, in each place if it is masked.
    """
    from unlearnable.pictures import quality
    from unlearnable.pictures.colour_difference import colour_difference

    measures = {"min_ssim": quality.ssim, "min_psnr": quality.psnr, "max_ciede2000": colour_difference}
    asked = [measures[name] for name in budget]
    noise, made = None, stack.made
    if made is not None:
        assert side is not None  # noqa: S101 - for the type checker
        channels = 3 if any(one.pixels.shape[2] > 1 for one in sample) else 1
        noise = _random(made, names, key, (side, side, channels))
    perturbation = stack.fit(Names(names), key, noise=noise)
    masks = made if made is not None and made.masking else None
    below = None if masks is None else stack.below()
    before = None if below is None else below.fit(Names(names), key)

    def measured(one: Sampled) -> list[float]:
        label = np.array([names.index(one.label)])
        applied, shown = perturbation, one.pixels[None]
        if noise is not None and masks is not None:
            changed = shown if before is None else before.apply(shown, label, [one.id])
            own = _as_loud(noise, masks, seen(changed[0], side), label.item(), one.id)
            applied = perturbation.with_noise(own)
        protected = applied.apply(shown, label, [one.id])[0]
        return [measure(one.pixels, protected) for measure in asked]

    with ThreadPoolExecutor(cores()) as pool:
        yield from pool.map(measured, sample)


def _random(method: AdditiveNoise, names: Sequence[str], key: Key, shape: tuple[int, ...]) -> Noise:
    """Draw noise of random signs, a pattern a class."""
    radius = int(method.radius)
    drawn = [key.stream("quality-noise", name).uniform(math.prod(shape)) < 0.5 for name in names]
    patterns = np.where(np.stack(drawn), -radius, radius).astype(np.int8).reshape(-1, *shape)
    return Noise(names, (), patterns[:0], patterns, radius=radius, method="random signs")


def _as_loud(noise: Noise, method: AdditiveNoise, image: NDArray[np.uint8], label: int, id_: str) -> Noise:
    """Give one picture, (side, side, 1 or 3) on the canvas, such signs of its own: as loud as masked noise may be."""
    levels = masked(image[None], method.radius, method.masking)[..., None]
    own = np.sign(noise.by_class[label]) * levels
    return Noise(noise.class_names, [id_], own, noise.by_class, radius=noise.radius, method=noise.method)
