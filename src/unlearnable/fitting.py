"""How a run comes by its perturbation: drawn from the key, made from the pictures, or read from a file."""

import contextlib
import hashlib
import json
import os
import shutil
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np

from unlearnable.errors import NotLearnedError, expected, needing
from unlearnable.keys import Key
from unlearnable.pictures import codec
from unlearnable.pictures.dataset import Dataset, load
from unlearnable.pictures.destination import writing
from unlearnable.pictures.folder import Folder
from unlearnable.pictures.samples import Samples
from unlearnable.pictures.source import Containers, Payload, payloads
from unlearnable.pictures.store import Entry
from unlearnable.protections.base import Perturbation, Protection
from unlearnable.protections.convolution import Convolution, ReferenceSeed
from unlearnable.protections.error_minimizing import AdditiveNoise
from unlearnable.protections.noise import Noise
from unlearnable.protections.settings import Status
from unlearnable.protections.stack import Stack, Stacked, described

_CANVAS: Final = (8, 64)  # pixels that the side of the canvas is chosen between, if it is not named
_LOOK_PICTURES: Final = 32  # that noise is made for where it is only to be looked at
_LOOK_STEPS: Final = 10

NoiseProgress = Callable[[Status], None]
"""Told after each step how far the noise is."""


@dataclass(frozen=True)
class Names:
    """Class names alone: all that CUDA has to know of its pictures."""

    class_names: Sequence[str]


@dataclass(frozen=True)
class NoiseFiles:
    """Where the noise of a run lies: beside its manifest, and as secret."""

    manifest: Path

    @property
    def noise(self) -> Path:
        """The file of the finished noise."""
        return self.manifest.with_name(self.manifest.name + ".noise.safetensors")

    @property
    def state(self) -> Path:
        """The folder that noise in the making is written down in."""
        return self.manifest.with_name(self.manifest.name + ".noise-run")

    def keep(self, perturbation: Perturbation) -> Perturbation:
        """Put noise that was made, or comes from another run, in its place; how it was made is not needed any more."""
        if isinstance(perturbation, Stacked) and perturbation.noise is not None:
            return perturbation.with_noise(self._keep(perturbation.noise))
        return self._keep(perturbation) if isinstance(perturbation, Noise) else perturbation

    def _keep(self, noise: Noise) -> Noise:
        if noise.path != self.noise:
            with writing(self.noise):
                if noise.path is not None and noise.path.parent == self.state:
                    os.replace(noise.path, self.noise)
                else:
                    noise.save(self.noise)
            noise = Noise.load(self.noise)
        shutil.rmtree(self.state, ignore_errors=True)
        return noise


@dataclass(frozen=True)
class _Applied:
    """What layers make of the pictures before noise is made for them."""

    layers: Perturbation

    @property
    def digest(self) -> str:
        """Tell these layers from others, and nothing about them."""
        return hashlib.sha256(json.dumps(self.layers.digests(), sort_keys=True).encode()).hexdigest()

    def __call__(self, samples: Samples, entry: Entry) -> Samples:
        """Apply them to one picture."""
        label = np.array([self.layers.class_names.index(entry.label)])
        out: Samples = self.layers.apply(samples[None], label, [entry.id])[0]
        return out


def made_noise(protection: Protection) -> AdditiveNoise | None:
    """Return what makes the noise of a protection from the pictures: itself, or a layer of it; None if nothing does."""
    if isinstance(protection, Stack):
        return protection.made
    return protection if isinstance(protection, AdditiveNoise) else None


def fitted(
    protection: Protection,
    pictures: Folder | Containers,
    names: Sequence[str],
    key: Key | ReferenceSeed,
    *,
    classes: str,
    files: NoiseFiles,
    given: Path | None,
    resumed: bool,
    progress: NoiseProgress | None,
) -> Perturbation:
    """Return the perturbation of a run.

    Noise is that of this run if it is finished, or what is given, or else made, from where it stopped.

    names: of the classes that have pictures. given: the noise file of another run. resumed: this run has begun before.

    Raises InputError for noise that does not fit, and whatever making it raises.
    """
    method = made_noise(protection)
    if method is None:
        return _drawn(protection, names, key)
    if files.noise.exists():
        if not resumed and (given is None or not os.path.samefile(given, files.noise)):
            remedy = "name it with --noise to use it, or move it away"
            raise expected("no noise of an earlier run beside a new manifest", str(files.noise), remedy)
        noise = _fitting(Noise.load(files.noise), method, names)
    elif given is not None:
        noise = _fitting(Noise.load(given), method, names)
    else:
        before = _before(protection, names, key)
        data = _canvases(method, pictures, classes, before)
        clean = _canvases(method, pictures, classes, None) if before is not None and method.learns_clean else None
        try:
            noise = method.fit(data, _secret(key), clean=clean, state=files.state, progress=progress)
        except NotLearnedError as error:
            if not isinstance(protection, Stack):
                raise
            steps = method.settings().steps
            more = [
                (name, replace(one, steps=2 * steps) if one == method else one)
                for name, one in protection.protections()
            ]
            remedy = f"--layers '{described(more)}' takes {2 * steps} in place of {steps}; name another destination"
            raise NotLearnedError(f"{error}. {remedy}") from None
    return _around(noise, protection, key)


def again(protection: Protection, names: Sequence[str], key: Key | ReferenceSeed, files: NoiseFiles) -> Perturbation:
    """Return the perturbation that a finished run had. Raises InputError where its noise is gone."""
    if made_noise(protection) is None:
        return _drawn(protection, names, key)
    if not files.noise.exists():
        raise expected("the noise of this run", f"nothing at {files.noise}", "put it back beside the manifest")
    return _around(Noise.load(files.noise), protection, key)


def to_look_at(
    protection: Protection,
    pictures: Folder | Containers,
    names: Sequence[str],
    key: Key | ReferenceSeed,
    *,
    classes: str,
    given: Path | None,
) -> Perturbation:
    """Return a perturbation that looks like that of a run: noise is made in a few steps, for some of each class."""
    method = made_noise(protection)
    if method is None:
        return _drawn(protection, names, key)
    if given is not None:
        noise = _fitting(Noise.load(given), method, names)
    else:
        before, limit = _before(protection, names, key), max(_LOOK_PICTURES, 2 * len(names))
        few = _canvases(method, pictures, classes, before, limit=limit)
        noise = replace(method, steps=_LOOK_STEPS, batch_size=_LOOK_PICTURES).fit(few, _secret(key))
    return _around(noise, protection, key)


def _before(protection: Protection, names: Sequence[str], key: Key | ReferenceSeed) -> Perturbation | None:
    """Return the layers that lie below the noise of a stack; None where there are none."""
    below = protection.below() if isinstance(protection, Stack) else None
    return None if below is None else _drawn(below, names, key)


def _around(noise: Noise, protection: Protection, key: Key | ReferenceSeed) -> Perturbation:
    """Return noise, or the stack that it is a layer of."""
    if not isinstance(protection, Stack):
        return noise
    check_distinct(noise.class_names)
    return protection.fit(noise, _secret(key), noise=noise)


def _drawn(protection: Protection, names: Sequence[str], key: Key | ReferenceSeed) -> Perturbation:
    """Draw a perturbation that depends on nothing but the key and the names of the classes."""
    check_distinct(names)
    if isinstance(key, ReferenceSeed):
        assert isinstance(protection, Convolution)  # noqa: S101 - no other takes one
        return protection.fit(Names(names), key)
    return protection.fit(Names(names), key)


def check_distinct(names: Sequence[str]) -> None:
    """Raise InputError if two classes have names that only their encoding tells apart: the key takes them for one."""
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            found = f"{other!a} and {name!a}, which look the same"
            raise expected("class names that differ", found, "merge the two classes, or rename one")


def _secret(key: Key | ReferenceSeed) -> Key:
    assert isinstance(key, Key)  # noqa: S101 - reference seeds are for CUDA
    return key


def _canvases(
    method: AdditiveNoise,
    pictures: Folder | Containers,
    classes: str,
    before: Perturbation | None,
    *,
    limit: int | None = None,
) -> Dataset:
    """Cut a canvas out of every picture, as it is stored: not turned upright, since noise is added to stored pixels.

    before: layers, which are applied to the whole picture first. limit: of pictures, the first of each class in turn.
    """
    _making()  # said before pictures are gone through
    change = None if before is None else _Applied(before)
    side = canvas(method, pictures)
    return load(pictures.root, classes=classes, size=side, limit=limit, turned=False, change=change)


def check_learnable(counts: Mapping[str, int]) -> None:
    """Raise InputError where noise cannot be made: without torch, or of pictures of so many by class."""
    _making().check_classes(counts)


def _making() -> ModuleType:
    with needing("train"):
        return import_module("unlearnable.protections._bilevel")


def canvas(method: AdditiveNoise, pictures: Folder | Containers) -> int:
    """Return the side of the canvas: as named, or the shorter side of the first picture that can be read, 8 to 64.

    Raises InputError where none can be read.
    """
    if method.size is not None:
        return method.size
    least, most = _CANVAS
    for _, payload in payloads(pictures, (entry for entry, _ in pictures.scan() if entry.error is None)):
        with contextlib.suppress(codec.PictureError, OSError):
            side = min(decoded(payload).shape[:2])
            return int(np.clip(side, least, most))
    raise expected("pictures that can be read", f"none in {pictures.root}", "check the files")


def decoded(payload: Payload) -> Samples:
    """Return the samples of a picture of a source. Raises PictureError or OSError where there are none to be had."""
    if isinstance(payload, str):
        payload = Path(payload).read_bytes()
    return codec.decode(payload or b"").pixels if payload is None or isinstance(payload, bytes) else payload


def _fitting(noise: Noise, method: AdditiveNoise, names: Sequence[str]) -> Noise:
    """Return noise. Raises InputError if it is of another method, radius or masking, or without some class."""
    wanted, found = (
        f"{kind} of radius {radius}" + (f" and masking {masking:g}" if masking else "")
        for kind, radius, masking in (
            (type(method).__name__, int(method.radius), method.masking),
            (noise.method, noise.radius, noise.masking),
        )
    )
    if wanted != found:
        masking = f":masking={noise.masking:g}" if noise.masking else ""
        layer = f"{noise.method.lower()}:radius={noise.radius}{masking}"
        remedy = f"write {layer} in --layers, or name the method and its --radius"
        raise expected(f"noise of {wanted}", f"{found} in {noise.path}", remedy)
    if more := [name for name in names if name not in noise.class_names]:
        wanted = f"pictures of the {len(noise.class_names)} classes that {noise.path} was made for"
        raise expected(wanted, f"others too ({more[0]!r})", "protect those into a destination of their own")
    return noise
