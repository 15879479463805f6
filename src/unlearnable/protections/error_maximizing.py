"""Noise that looks to a network trained on clean pictures like another class; the label stays.

TAP: Fowl et al., "Adversarial Examples Make Strong Poisons", NeurIPS 2021. Targeted, the noise leads towards the next
class in the order of their names (label + 1 modulo the number of classes); untargeted, it leads away from the label.

Decoys: towards the next class in an order that is drawn from the key, with a surrogate that is trained against an
adversary, as Wang, Wang and Wang, "Fooling Adversarial Training with Inducing Noise", arXiv 2111.10130, have it; and
through what scrapers do to pictures, which is not from a paper.
"""

import math
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from unlearnable.errors import expected
from unlearnable.protections.base import protections
from unlearnable.protections.error_minimizing import SURROGATE, AdditiveNoise, Robust
from unlearnable.protections.settings import Settings, Status

if TYPE_CHECKING:
    from torch import nn

    from unlearnable.pictures.dataset import Dataset
    from unlearnable.protections._bilevel import Member
    from unlearnable.training.checkpoint import Epoch
    from unlearnable.training.loop import Change
    from unlearnable.training.recipes import Recipe

_REACH: Final = 4.0  # radii; with 2, fewer pictures were taken for the other class


@dataclass(frozen=True, kw_only=True)
class _Pretrained(AdditiveNoise):
    """A method whose surrogate comes trained: a checkpoint, or what it trains itself on pictures without its noise."""

    def _given(self, settings: Settings, **usual: Any) -> Settings:
        """Return settings with what is usual for the method, where nothing else was given."""
        return replace(settings, **{name: value for name, value in usual.items() if getattr(self, name) is None})

    @abstractmethod
    def training(self) -> "tuple[Recipe, Change | None]":
        """Return how the surrogate is trained, whatever the epochs, and what is done to each batch before."""

    def _surrogate(
        self,
        data: "Dataset",
        seed: int,
        state: Path | None,
        device: str | None,
        progress: Callable[[Status], None] | None,
    ) -> "Callable[[], nn.Module]":
        if self.settings().model.endswith(".safetensors"):
            return lambda: _loaded(Path(self.settings().model), data)
        return lambda: self._trained(data, seed, state, device, progress)

    def _trained(
        self,
        data: "Dataset",
        seed: int,
        state: Path | None,
        device: str | None,
        progress: Callable[[Status], None] | None,
    ) -> "nn.Module":
        """Train a network on the clean pictures; with a state, it goes on where it stopped.

        Raises NotLearnedError where it has learned nothing.
        """
        from unlearnable.protections._bilevel import check_learned, guessing
        from unlearnable.training.chance import derived
        from unlearnable.training.loop import train

        settings = self.settings()
        in_epoch = math.ceil(len(data) / settings.batch_size)
        epochs, crop = math.ceil(settings.steps / in_epoch), data.images.shape[1] // 8
        recipe, change = self.training()
        trained = train(
            data,
            model=super()._surrogate(data, seed, state, device, progress),
            recipe=replace(recipe, epochs=epochs, batch_size=settings.batch_size, crop=crop),
            change=change,
            seed=derived(seed, "surrogate") % 2**32,
            device=device,
            checkpoint=None if state is None else state / SURROGATE,
            progress=None if progress is None else _as_status(progress, settings.batch_size),
        )
        check_learned(trained.history[-1].loss, guessing(data.labels), epochs * in_epoch, "clean")
        return trained.model


@protections.register("tap")
@dataclass(frozen=True, kw_only=True)
class TAP(_Pretrained):
    """Targeted adversarial poisoning.

    model: beside the names of models, the checkpoint of ``unlearnable train`` on clean pictures of the canvas's size.
    steps: of training the surrogate where there is no checkpoint; rounded up to whole epochs. targeted: towards the
    next class, or else away from the label.
    """

    targeted: bool = True

    def settings(self) -> Settings:
        """Return the settings: the paper's 250 steps of noise if not given, of one sample.

        In the fast preset 50.
        """
        return self._given(super().settings(), samples=1, noise_steps=50 if self.preset == "fast" else 250)

    def member(self, side: int) -> "Member":
        """Return TAP: a surrogate that comes trained, and another goal."""
        from unlearnable.protections._bilevel import Member, Unperturbed
        from unlearnable.protections.crop_flip import CropFlip

        shift, ascend = (1, False) if self.targeted else (0, True)
        transform = CropFlip(padding=side // 8)
        return Member(perturb=Unperturbed(), objective=None, transform=transform, shift=shift, ascend=ascend)

    def training(self) -> "tuple[Recipe, Change | None]":
        """Return plain training."""
        from unlearnable.training.recipes import named

        return named("erm"), None


@protections.register("decoy")
@dataclass(frozen=True, kw_only=True)
class Decoy(_Pretrained, Robust):
    """Decoys: noise that gives pictures of a class the robust features of another one, which the key chooses.

    They are meant to outlast adversarial training, so that the radius should be above that training's budget.

    model, steps: as for TAP, but that a checkpoint should be of adversarial training. inner_radius: of the adversary
    that the surrogate is trained against, and of the random noise that decoys are made under, in grey levels of 255; 0
    for none. against: where it is "countermeasures", the surrogate too learns from retouched pictures.
    """

    learns_clean: ClassVar[bool] = True

    inner_radius: float = 8
    against: Literal["crops", "countermeasures"] = "countermeasures"

    def settings(self) -> Settings:
        """Return the settings: of one sample, and 100 steps of noise if not given.

        In the fast preset 20, 2,000 steps of training, and 3 of its adversary.
        """
        found = super().settings()
        if self.preset == "fast":
            return self._given(replace(found, inner_steps=3), samples=1, noise_steps=20, steps=2_000)
        return self._given(found, samples=1, noise_steps=100)

    def parameters(self) -> dict[str, int | float | str | None]:
        """Return every field, but for masking where there is none; what REM and SEM leave out is not usual here."""
        return AdditiveNoise.parameters(self)

    def member(self, side: int) -> "Member":
        """Return decoys: chance inside, a surrogate that comes trained, and a secret goal."""
        from unlearnable.protections._bilevel import Member

        changed = self._transformed(side)
        return Member(perturb=self._chance(), objective=None, shift=1, shuffled=True, reach=_REACH, **changed)

    def training(self) -> "tuple[Recipe, Change | None]":
        """Return adversarial training, on pictures under gammas, some of which are turned grey or lit evenly."""
        from unlearnable.protections.countered import Retouched
        from unlearnable.training.recipes import Recipe

        change = Retouched() if self.against == "countermeasures" else None
        return Recipe(objective=self._adversarial(), learning_rate=0.06), change


def _as_status(progress: Callable[[Status], None], batch_size: int) -> "Callable[[int, int, Epoch | None], None]":
    """Tell of a training in the words of the noise."""
    started = time.monotonic()
    first: int | None = None
    loss: float | None = None

    def tell(done: int, total: int, epoch: "Epoch | None") -> None:
        nonlocal first, loss
        first = done - 1 if first is None else first  # of the steps of this time
        loss = loss if epoch is None else epoch.loss
        left = (time.monotonic() - started) * (total - done) / (done - first)
        progress(Status(done, total, loss, None, left, done * batch_size, clean=True))

    return tell


def _loaded(path: Path, data: "Dataset") -> "nn.Module":
    """Load a trained surrogate. Raises InputError unless it is of these classes and of pictures of this size."""
    from unlearnable.training.checkpoint import load_network

    network, about = load_network(path)
    side, channels = data.images.shape[1], data.images.shape[3]
    if (about.size, about.channels) != (side, channels):
        raise expected(
            f"a surrogate for pictures of {side} pixels and {channels} channels",
            f"one for {about.size} and {about.channels} in {path}",
            f"say --size {about.size}, or train one with --size {side}",
        )
    if sorted(about.class_names) != sorted(data.class_names):
        found = f"{len(about.class_names)} others in {path}"
        raise expected(f"a surrogate trained on these {len(data.class_names)} classes", found, "train one on them")
    if about.class_names != data.class_names:
        order = [about.class_names.index(name) for name in data.class_names]
        network.register_forward_hook(lambda _network, _images, answers: answers[:, order])
    return network
