"""Settings of the noise family: what the papers took, and what two cores can do. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from unlearnable.errors import expected

RUN: Final = "run.safetensors"
"""The file, in the folder of a run, that it goes on from."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much work goes into the noise.

    model: the surrogate, a name of ``unlearnable list models``. steps: batches that noise and surrogate are made with
    by turns. learning_rate: at first; a tenth after two fifths of the steps, a hundredth after four fifths.
    noise_steps: sign steps for a batch's noise; each goes 2 radius / noise_steps far (4, for decoys). samples: of the
    transformation in each. inner_steps: of the adversary, wherever there is one.

    Raises InputError for values out of range.
    """

    model: str
    steps: int
    batch_size: int = 128
    learning_rate: float = 0.1
    noise_steps: int = 10
    samples: int = 5
    inner_steps: int = 10

    def __post_init__(self) -> None:
        """Check the ranges."""
        # In batches of at most two, one picture may be left alone, of which batch normalisation makes nothing.
        for name, least in (("steps", 1), ("batch_size", 3), ("noise_steps", 1), ("samples", 1), ("inner_steps", 1)):
            if getattr(self, name) < least:
                raise expected(f"{name} of {least} or more", str(getattr(self, name)), "raise it")


@dataclass(frozen=True)
class Status:
    """How far a run is.

    done, total: steps. loss: the surrogate's running loss, on protected pictures, or on clean ones while it is trained
    beforehand; psnr: of the protected pictures, in dB, running too; None before there is any. seconds_left: as far as
    one can tell. gradients: pictures passed forward and backward so far. clean: a surrogate is trained on clean
    pictures.
    """

    done: int
    total: int
    loss: float | None
    psnr: float | None
    seconds_left: float
    gradients: int
    clean: bool = False


PRESETS: Final[Mapping[str, Settings]] = MappingProxyType(
    {
        "fast": Settings(model="resnet9-w16", steps=400, inner_steps=5),
        "paper": Settings(model="resnet18", steps=5_000),
        "strong": Settings(model="resnet18", steps=10_000, noise_steps=20, samples=10),
    }
)
"""fast: for two cores. paper: of the REM and SEM papers for CIFAR-10. strong: twice as much of each."""


def preset(name: str) -> Settings:
    """Look settings up. Raises InputError for an unknown name.

    >>> preset("paper").noise_steps
    10
    """
    if name not in PRESETS:
        raise expected(f"one of the presets {', '.join(PRESETS)}", repr(name), "fast is for two cores")
    return PRESETS[name]
