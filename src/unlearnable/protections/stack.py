"""Layers of different kinds, one over the other, under one key.

Whatever takes one kind of shortcut away leaves the others: a warp undoes a blur and leaves colours alone, equalisation
undoes colours and leaves a blur. A stack holds against one countermeasure at a time, and against some of their
combinations; ``docs/stack.md`` tells what was measured, and what still breaks it.
"""

import hashlib
import inspect
import json
import math
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self, cast

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from unlearnable.errors import expected
from unlearnable.keys import Key
from unlearnable.protections.autoregressive import AutoregressiveNoise
from unlearnable.protections.base import (
    ROUNDING,
    Classed,
    Images,
    Labels,
    Layer,
    Perturbation,
    Protection,
    Traces,
    check_images,
    protections,
)
from unlearnable.protections.convolution import ClasswiseConvolution
from unlearnable.protections.noise import Noise
from unlearnable.protections.tone import ClasswiseTone

_FORMAT: Final = "unlearnable-stack-1"

LAYERS: Final[dict[str, type[Perturbation]]] = {
    "autoregressive": AutoregressiveNoise,
    "cuda": ClasswiseConvolution,
    "patches": Noise,
    "tone": ClasswiseTone,
}
"""The protections that can be layers, and what they give: those that are drawn from the key, whatever the pictures."""

PRESETS: Final = {
    "light": "cuda,tone:strength=0.25",
    "balanced": "cuda,tone",
    "strong": "cuda,tone:grid=4",
}
"""Stacks by name, in the order of what they change."""


def parse(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Take a stack's description apart: ``NAME[:OPTION=VALUE...]``, with commas between layers.

    >>> parse("cuda,tone:strength=0.75:grid=4")
    [('cuda', {}), ('tone', {'strength': 0.75, 'grid': 4})]

    Raises InputError for anything else, for what cannot be a layer, and for one layer twice.
    """
    found: list[tuple[str, dict[str, Any]]] = []
    for layer in text.split(","):
        name, *words = layer.strip().split(":")
        if name not in LAYERS:
            remedy = "protect twice for noise that is made from the pictures" if name in protections else "see --help"
            raise expected(f"layers among {', '.join(LAYERS)}", repr(name), remedy)
        if name in (other for other, _ in found):
            raise expected("each layer once", f"{name!r} twice", "leave one out")
        found.append((name, dict(_option(layer, word) for word in words)))
    return found


def _option(layer: str, word: str) -> tuple[str, int | float]:
    option, _, value = word.partition("=")
    for kind in (int, float):
        try:
            return option, kind(value)
        except ValueError:
            pass
    raise expected("a layer as NAME:OPTION=NUMBER", repr(layer), "write for example tone:strength=0.5")


@protections.register("stack")
@dataclass(frozen=True, kw_only=True)
class Stack(Protection):
    """A stack: of its preset, or of the layers that are named.

    layers: such as "cuda,tone:strength=0.5", applied from left to right (see :func:`parse`).
    preset: one of :data:`PRESETS`, if no layers are named.
    min_ssim: a quality budget, above 0 and below 1: what the median SSIM of protected against original pictures has to
        be at least. The layers have to be weakened until it is (see :mod:`unlearnable.protections.quality_budget`)
        before the stack can be fitted.

    Raises InputError for unknown layers, options and presets, and for values out of a layer's range.
    """

    layers: str | None = None
    preset: str | None = None
    min_ssim: float | None = None

    def __post_init__(self) -> None:
        if self.layers is not None and self.preset is not None:
            raise expected("layers or a preset", "both", "leave one out")
        if self.preset not in (None, *PRESETS):
            raise expected(f"a preset among {', '.join(PRESETS)}", repr(self.preset), "or name layers")
        if self.min_ssim is not None and not 0 < self.min_ssim < 1:
            raise expected("a median SSIM above 0 and below 1", str(self.min_ssim), "0.85 is a slight change")
        self.protections()

    def protections(self) -> list[tuple[str, Layer]]:
        """Build the layers, by name."""
        chosen = PRESETS[self.preset or "balanced"] if self.layers is None else self.layers
        layers = []
        for name, options in parse(chosen):
            try:
                layers.append((name, cast("Layer", protections.create(name, **options))))
            except TypeError:
                known = ", ".join(inspect.signature(protections.builder(name)).parameters)
                raise expected(f"options of {name} ({known})", ", ".join(options), "see its documentation") from None
        return layers

    def scaled(self, share: float) -> "Stack":
        """Return the stack with all layers at a share, above 0 and at most 1, of their strengths."""
        return self._of([(name, layer.scaled(share)) for name, layer in self.protections()])

    def without(self, name: str) -> "Stack":
        """Return the stack without one of its layers."""
        return self._of([(other, layer) for other, layer in self.protections() if other != name])

    def _of(self, layers: Sequence[tuple[str, Layer]]) -> "Stack":
        return replace(self, layers=described(layers), preset=None)

    def fit(self, dataset: Classed, key: Key) -> "Stacked":
        """Draw every layer from the key. Raises ValueError where a budget has not been met yet."""
        if self.min_ssim is not None:
            raise ValueError("expected strengths that meet the budget, found a budget: find them first")
        return Stacked([(name, layer.fit(dataset, key)) for name, layer in self.protections()])

    def parameters(self) -> dict[str, int | float | str | None]:
        """Return the layers with all their options, so that a preset may change without changing what was made.

        And the budget, if it has not been met yet.
        """
        budget = {} if self.min_ssim is None else {"min_ssim": self.min_ssim}
        return {"layers": described(self.protections()), **budget}


def described(layers: Sequence[tuple[str, Protection]]) -> str:
    """Write layers as :func:`parse` reads them, with all their options."""
    return ",".join(
        name + "".join(f":{option}={value}" for option, value in layer.parameters().items() if value is not None)
        for name, layer in layers
    )


class Stacked(Perturbation):
    """Fitted layers. Each changes what the one before has made, stored as it would be published."""

    def __init__(self, layers: Sequence[tuple[str, Perturbation]]) -> None:
        """Take the layers, by name, in the order in which they are applied; all of the same classes."""
        self.layers = tuple(layers)
        self.class_names = tuple(self.layers[0][1].class_names)

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
        """Take the layers off again, the last one first; each adds its own rounding to the noise."""
        check_images(images, labels, len(self.class_names))
        unpacked = [_unpacked(trace) for trace in traces]
        for place, (_, layer) in reversed(list(enumerate(self.layers))):
            of_layer = np.empty(len(images), object)
            of_layer[:] = [these[place] for these in unpacked]
            if all(isinstance(trace, float) for trace in of_layer):
                of_layer = of_layer.astype(np.float64)
            images = layer.restore(images, labels, ids, of_layer, noise)
            noise = math.hypot(noise, ROUNDING)
        return images

    def digests(self) -> dict[str, str]:
        """Return a digest of all that each class's pictures go through, by class name."""
        each = [layer.digests() for _, layer in self.layers]
        return {
            name: hashlib.sha256("".join(digests[name] for digests in each).encode()).hexdigest()
            for name in self.class_names
        }

    def save(self, path: str | Path) -> None:
        """Write a safetensors file that holds the files of all layers. It is as secret as the key."""
        with tempfile.TemporaryDirectory() as folder:
            files = {}
            for place, (_, layer) in enumerate(self.layers):
                layer.save(Path(folder, str(place)))
                files[str(place)] = np.fromfile(Path(folder, str(place)), np.uint8)
        save_file(files, path, {"format": _FORMAT, "layers": json.dumps([name for name, _ in self.layers])})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file written by :meth:`save`. Raises InputError for any other."""
        try:
            with safe_open(path, framework="numpy") as file, tempfile.TemporaryDirectory() as folder:
                about = file.metadata() or {}
                if about.get("format") != _FORMAT:
                    raise KeyError(_FORMAT)
                layers = []
                for place, name in enumerate(json.loads(about["layers"])):
                    of_layer = Path(folder, str(place))
                    of_layer.write_bytes(file.get_tensor(str(place)).tobytes())
                    layers.append((name, LAYERS[name].load(of_layer)))
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise expected("a stack written by this package", f"{path} ({error})", "fit it again") from None
        return cls(layers)


def _packed(traces: Sequence[float | bytes | None]) -> bytes:
    """Write the traces of a picture's layers one after the other: a number, or the length of bytes and those."""
    parts = []
    for trace in traces:
        if isinstance(trace, bytes):
            parts.append(struct.pack("<cI", b"b", len(trace)) + trace)
        else:
            parts.append(b"n" if trace is None else struct.pack("<cd", b"f", trace))
    return b"".join(parts)


def _unpacked(packed: bytes) -> list[float | bytes | None]:
    """Read what :func:`_packed` has written.

    >>> _unpacked(_packed([1.5, b"abc", None]))
    [1.5, b'abc', None]
    """
    traces: list[float | bytes | None] = []
    at = 0
    while at < len(packed):
        kind, at = packed[at : at + 1], at + 1
        if kind == b"f":
            traces.append(struct.unpack_from("<d", packed, at)[0])
            at += 8
        elif kind == b"b":
            (length,) = struct.unpack_from("<I", packed, at)
            traces.append(packed[at + 4 : at + 4 + length])
            at += 4 + length
        else:
            traces.append(None)
    return traces
