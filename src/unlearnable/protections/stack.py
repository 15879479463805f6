"""Layers of different kinds, one over the other, under one key.

Whatever takes one kind of shortcut away leaves the others: a warp undoes a blur and leaves colours alone, equalisation
undoes colours and leaves a blur. A stack holds against one countermeasure at a time, and against some of their
combinations; ``docs/stack.md`` tells what was measured, and what still breaks it.
"""

import hashlib
import json
import math
import struct
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, Self, cast, get_args, get_type_hints

import numpy as np

from unlearnable.errors import InputError, expected
from unlearnable.keys import Key
from unlearnable.pictures.destination import writing
from unlearnable.pictures.samples import Part
from unlearnable.protections.autoregressive import AutoregressiveNoise
from unlearnable.protections.base import (
    ROUNDING,
    Classed,
    Images,
    Labels,
    Layer,
    Perturbation,
    Protection,
    Trace,
    TraceError,
    Traces,
    check_images,
    protections,
)
from unlearnable.protections.convolution import ClasswiseConvolution
from unlearnable.protections.echo import ClasswiseEcho
from unlearnable.protections.error_minimizing import AdditiveNoise
from unlearnable.protections.noise import Noise, share_left
from unlearnable.protections.tensors import reading_tensors, write_tensors
from unlearnable.protections.tone import ClasswiseTone
from unlearnable.protections.veil import ClasswiseVeil

_FORMAT: Final = "unlearnable-stack-1"
_CHUNK: Final = 1 << 24  # bytes that are copied at a time

MADE: Final = ("em", "rem", "sem", "tap", "decoy")
"""The layers whose noise is made from the pictures; the others are drawn from the key, whatever the pictures."""

LAYERS: Final[dict[str, type[Perturbation]]] = {
    "autoregressive": AutoregressiveNoise,
    "cuda": ClasswiseConvolution,
    "echo": ClasswiseEcho,
    "patches": Noise,
    "tone": ClasswiseTone,
    "veil": ClasswiseVeil,
    **dict.fromkeys(MADE, Noise),
}
"""The protections that can be layers, and what they give."""

PRESETS: Final = {
    "light": "cuda:blur=0.12:aligned=1,tone:strength=0.2:grid=4,patches:radius=3:grid=8",
    "balanced": "cuda:blur=0.17:aligned=1,tone:strength=0.28:grid=4,patches:radius=4:grid=8",
    "strong": "cuda:blur=0.21:aligned=1,tone:strength=0.36:grid=4,patches:radius=6:grid=8",
    "strongest": "tone:strength=0.01:grid=2:gamma=0.7:mix=0.15,veil:radius=48:grid=4,"
    "sem:radius=11:masking=1:inner_radius=6:steps=300:samples=1:against=countermeasures",
}
"""Stacks by name, in the order of what they change. All but the last are drawn from the key alone."""


def parse(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Take a stack's description apart: ``NAME[:OPTION=VALUE...]``, with commas between layers.

    >>> parse("cuda,tone:strength=0.75:grid=4")
    [('cuda', {}), ('tone', {'strength': 0.75, 'grid': 4})]

    Raises InputError for anything else, for what cannot be a layer, for a layer or an option twice, and for two
    layers whose noise is made from the pictures.
    """
    found: dict[str, dict[str, Any]] = {}
    for layer in text.split(","):
        name, *words = layer.strip().split(":")
        if name not in LAYERS:
            remedy = "decimals take a point" if name.isdecimal() else "write for example cuda,tone:strength=0.5"
            raise expected(f"layers among {', '.join(LAYERS)}", repr(name), remedy)
        if name in found:
            raise expected("each layer once", f"{name!r} twice", "leave one out")
        options = [_option(name, word) for word in words]
        found[name] = dict(options)
        if len(found[name]) < len(options):
            raise expected(f"each option of {name} once", repr(layer.strip()), "leave one out")
    made = [repr(name) for name in found if name in MADE]
    if len(made) > 1:
        raise expected(f"one layer at most among {', '.join(MADE)}", " and ".join(made), "leave one out")
    return list(found.items())


def _option(layer: str, word: str) -> tuple[str, int | float | str]:
    """Take an option apart; what its value can be is what the layer's class says."""
    option, _, value = word.partition("=")
    hints = get_type_hints(protections.builder(layer))
    if option not in hints:
        raise expected(f"options of the layer {layer} ({', '.join(hints)})", repr(option), "name one of those")
    kinds = get_args(hints[option]) or (hints[option],)
    if str in kinds or isinstance(kinds[0], str):
        if value:
            return option, value
        kind, remedy = "WORD", "name one"
    elif bool in kinds:
        if value in ("0", "1"):
            return option, int(value)
        kind, remedy = "0 or 1", "choose one of the two"
    else:
        kind, remedy = ("NUMBER", "decimals take a point") if float in kinds else ("WHOLE NUMBER", "take no decimals")
        for number in (int, float) if float in kinds else (int,):
            try:
                return option, number(value)
            except ValueError:
                pass
    raise expected(f"{layer}:{option}={kind}", repr(f"{layer}:{word}"), remedy)


@protections.register("stack")
@dataclass(frozen=True, kw_only=True)
class Stack(Protection):
    """A stack: of its preset, or of the layers that are named.

    layers: such as "cuda,tone:strength=0.5", applied from left to right (see :func:`parse`).
    preset: one of :data:`PRESETS`, if no layers are named.
    min_ssim, min_psnr, max_ciede2000: a quality budget: what the median SSIM (above 0 and below 1) and the median PSNR
        (dB) of protected against original pictures have to be at least, and the median CIEDE2000 colour difference at
        most. The layers have to be weakened until all that is given is met (see
        :mod:`unlearnable.protections.quality_budget`) before the stack can be fitted.

    Raises InputError for unknown layers, options and presets, and for values out of a layer's range.
    """

    layers: str | None = None
    preset: str | None = None
    min_ssim: float | None = None
    min_psnr: float | None = None
    max_ciede2000: float | None = None

    def __post_init__(self) -> None:
        if self.layers is not None and self.preset is not None:
            raise expected("layers or a preset", "both", "leave one out")
        if self.preset not in (None, *PRESETS):
            raise expected(f"a preset among {', '.join(PRESETS)}", repr(self.preset), "or name layers")
        if self.min_ssim is not None and not 0 < self.min_ssim < 1:
            raise expected("a median SSIM above 0 and below 1", str(self.min_ssim), "write for example 0.85")
        if self.min_psnr is not None and not 0 < self.min_psnr < math.inf:
            raise expected("a finite median PSNR above 0 dB", str(self.min_psnr), "write for example 20")
        if self.max_ciede2000 is not None and not 0 < self.max_ciede2000 < math.inf:
            raise expected("a finite median CIEDE2000 above 0", str(self.max_ciede2000), "write for example 10")
        self.protections()

    def protections(self) -> list[tuple[str, Layer]]:
        """Build the layers, by name. Raises InputError, with the layer's name, for values out of its range."""
        chosen = PRESETS[self.preset or "balanced"] if self.layers is None else self.layers
        return [(name, _layer(name, options)) for name, options in parse(chosen)]

    @property
    def budget(self) -> dict[str, float]:
        """The limits that are given, by name; none once they are met."""
        limits = {"min_ssim": self.min_ssim, "min_psnr": self.min_psnr, "max_ciede2000": self.max_ciede2000}
        return {name: limit for name, limit in limits.items() if limit is not None}

    @property
    def made(self) -> AdditiveNoise | None:
        """The layer whose noise is made from the pictures, if there is one."""
        return next((layer for _, layer in self.protections() if isinstance(layer, AdditiveNoise)), None)

    def below(self) -> "Stack | None":
        """Return the layers that come before the one whose noise is made from the pictures; None if there are none."""
        layers = list(takewhile(lambda one: one[0] not in MADE, self.protections()))
        return self._of(layers) if layers else None

    def scaled(self, share: float) -> "Stack":
        """Return the stack with all layers at a share, above 0 and at most 1, of their strengths."""
        return self._of([(name, layer.scaled(share)) for name, layer in self.protections()])

    def without(self, name: str) -> "Stack":
        """Return the stack without one of its layers."""
        return self._of([(other, layer) for other, layer in self.protections() if other != name])

    def _of(self, layers: Sequence[tuple[str, Layer]]) -> "Stack":
        return replace(self, layers=described(layers), preset=None)

    def fit(self, dataset: Classed, key: Key, *, noise: Noise | None = None) -> "Stacked":
        """Draw every layer from the key; and make noise from the pictures as the layers before it leave them.

        noise: of the layer that makes any, if that is done; of the same classes.

        Raises ValueError where a budget has not been met yet, and InputError where noise needs pictures and there are
        class names alone.
        """
        if self.budget:
            raise ValueError("expected strengths that meet the budget, found a budget: find them first")
        if noise is None and (made := self.made) is not None:
            noise = made.fit(self._changed(dataset, key), key, clean=dataset)
        classed = dataset if noise is None else noise
        return Stacked(
            [
                (name, noise if noise is not None and name in MADE else layer.fit(classed, key))
                for name, layer in self.protections()
            ]
        )

    def _changed(self, dataset: Classed, key: Key) -> Classed:
        """Return pictures as the layers before the noise leave them; class names alone as they are."""
        from unlearnable.pictures.dataset import Dataset

        below = self.below()
        if below is None or not isinstance(dataset, Dataset):
            return dataset
        changed = below.fit(dataset, key).apply(dataset.images, dataset.labels, dataset.ids)
        return replace(dataset, images=changed.astype(np.uint8, copy=False))

    def parameters(self) -> dict[str, int | float | str | None]:
        """Return the layers with all their options, so that a preset may change without changing what was made.

        And the budget, if it has not been met yet.
        """
        return {"layers": described(self.protections()), **self.budget}


def _layer(name: str, options: Mapping[str, Any]) -> Layer:
    try:
        return cast("Layer", protections.create(name, **options))
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def described(layers: Sequence[tuple[str, Protection]]) -> str:
    """Write layers as :func:`parse` reads them, with all their options."""
    return ",".join(
        name
        + "".join(f":{option}={_written(value)}" for option, value in layer.parameters().items() if value is not None)
        for name, layer in layers
    )


def _written(value: int | float | str | None) -> int | float | str | None:
    return int(value) if isinstance(value, bool) else value


class Stacked(Perturbation):
    """Fitted layers. Each changes what the one before has made, stored as it would be published."""

    def __init__(self, layers: Sequence[tuple[str, Perturbation]]) -> None:
        """Take the layers, by name, in the order in which they are applied; all of the same classes."""
        self.layers = tuple(layers)
        self.class_names = tuple(self.layers[0][1].class_names)
        self.path: Path | None = None
        if any(tuple(layer.class_names) != self.class_names for _, layer in self.layers):
            raise ValueError("expected layers of the same classes in the same order, found others")

    def __reduce__(self) -> tuple[Any, ...]:
        """Go to another process as the name of a file, if there is one: noise may be larger than the memory."""
        return (type(self).load, (self.path,)) if self.path is not None else super().__reduce__()  # type: ignore[return-value]

    @property
    def noise(self) -> Noise | None:
        """The noise that was made from pictures, if a layer's was."""
        return next((layer for name, layer in self.layers if name in MADE and isinstance(layer, Noise)), None)

    def with_noise(self, noise: Noise) -> "Stacked":
        """Return the same layers with other noise in the place of that which was made from pictures."""
        return Stacked([(name, noise if name in MADE else layer) for name, layer in self.layers])

    def apply_traced(self, images: Images, labels: Labels, ids: Sequence[str]) -> tuple[Images, Traces]:
        """Apply the layers one after the other; the traces hold those of all of them, as bytes."""
        check_images(images, labels, len(self.class_names))
        found = []
        for _, layer in self.layers:
            images, traces = layer.apply_traced(images, labels, ids)
            found.append(traces.tolist())
        packed = np.empty(len(images), object)
        packed[:] = [_packed(traces) for traces in zip(*found, strict=True)]
        return images, packed

    def restore(
        self, images: Images, labels: Labels, ids: Sequence[str], traces: Traces, noise: float = ROUNDING
    ) -> Images:
        """Take the layers off again, the last one first."""
        check_images(images, labels, len(self.class_names))
        unpacked = [_unpacked(trace, len(self.layers)) for trace in traces]
        for place, (_, layer) in reversed(list(enumerate(self.layers))):
            of_layer = np.empty(len(images), object)
            of_layer[:] = [these[place] for these in unpacked]
            if all(isinstance(trace, float) for trace in of_layer):
                of_layer = of_layer.astype(np.float64)
            images = layer.restore(images, labels, ids, of_layer, noise)
        return images

    @property
    def adds_noise(self) -> bool:
        """Whether a layer does."""
        return any(layer.adds_noise for _, layer in self.layers)

    def traced_in_loss(
        self, trace: Trace, original: Images, protected: Images, stored: Images, part: Part, label: int, id_: str
    ) -> Trace:
        """Return the traces of all layers, that of a layer of noise being the share that is left of what it changes."""
        traces = _unpacked(trace, len(self.layers))
        for place, (_, layer) in enumerate(self.layers):
            if isinstance(layer, Noise):
                if place == len(self.layers) - 1:
                    without = layer.before(protected, label, id_, part)
                else:
                    without = self._without(place, original, label, id_)[part]
                traces[place] = share_left(without, protected[part], stored)
        return _packed(traces)

    def _without(self, place: int, image: Images, label: int, id_: str) -> Images:
        """Apply all layers but one to a picture, (height, width, channels)."""
        images: Images = image[None]
        for other, (_, layer) in enumerate(self.layers):
            if other != place:
                images = layer.apply(images, np.array([label]), [id_])
        changed: Images = images[0]
        return changed

    def noise_left(self, trace: Trace) -> float | None:
        """Return the least share that a lossy format has left of a layer's noise."""
        shares = [
            share
            for (_, layer), of_layer in zip(self.layers, _unpacked(trace, len(self.layers)), strict=True)
            if (share := layer.noise_left(of_layer)) is not None
        ]
        return min(shares, default=None)

    def digests(self) -> dict[str, str]:
        """Return a digest of all that each class's pictures go through, by class name."""
        each = [layer.digests() for _, layer in self.layers]
        return {
            name: hashlib.sha256("".join(digests[name] for digests in each).encode()).hexdigest()
            for name in self.class_names
        }

    def save(self, path: str | Path) -> None:
        """Write a safetensors file that holds the files of all layers. It is as secret as the key."""
        path = Path(path)
        with writing(path), tempfile.TemporaryDirectory(dir=path.absolute().parent) as folder:
            files = {}
            for place, (_, layer) in enumerate(self.layers):
                layer.save(Path(folder, str(place)))
                files[str(place)] = np.memmap(Path(folder, str(place)), np.uint8, "r")
            write_tensors(path, files, {"format": _FORMAT, "layers": json.dumps([name for name, _ in self.layers])})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file written by :meth:`save`. Raises InputError for any other."""
        with (
            reading_tensors(path, _FORMAT, "a stack", "fit it again") as (file, about),
            tempfile.TemporaryDirectory() as folder,
        ):
            layers = []
            for place, name in enumerate(json.loads(about["layers"])):
                of_layer, content = Path(folder, str(place)), file.get_slice(str(place))
                (size,) = content.get_shape()
                with of_layer.open("wb") as out:
                    for start in range(0, size, _CHUNK):
                        out.write(content[start : min(start + _CHUNK, size)].tobytes())
                layer = LAYERS[name].load(of_layer)
                if isinstance(layer, Noise):
                    layer.path = None  # it stays mapped, but its name is gone in a moment
                layers.append((name, layer))
        stacked = cls(layers)
        stacked.path = Path(path)
        return stacked


def _packed(traces: Sequence[float | bytes | None]) -> bytes:
    """Write the traces of a picture's layers one after the other: a number, or the length of bytes and those."""
    parts = []
    for trace in traces:
        if isinstance(trace, bytes):
            parts.append(struct.pack("<cI", b"b", len(trace)) + trace)
        else:
            parts.append(b"n" if trace is None else struct.pack("<cd", b"f", trace))
    return b"".join(parts)


def _unpacked(packed: Trace, count: int) -> list[float | bytes | None]:
    """Read what :func:`_packed` has written of so many layers.

    Raises TraceError for anything else.

    >>> _unpacked(_packed([1.5, b"abc", None]), 3)
    [1.5, b'abc', None]
    """
    if not isinstance(packed, bytes):
        raise TraceError
    traces: list[float | bytes | None] = []
    at = 0
    try:
        while at < len(packed):
            kind, at = packed[at : at + 1], at + 1
            if kind == b"f":
                traces.append(struct.unpack_from("<d", packed, at)[0])
                at += 8
            elif kind == b"b":
                (length,) = struct.unpack_from("<I", packed, at)
                traces.append(packed[at + 4 : at + 4 + length])
                at += 4 + length
            elif kind == b"n":
                traces.append(None)
            else:
                raise TraceError
    except struct.error:
        raise TraceError from None
    if at != len(packed) or len(traces) != count:
        raise TraceError
    return traces
