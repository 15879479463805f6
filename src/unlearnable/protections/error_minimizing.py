"""EM, REM and SEM: noise that makes a surrogate's loss small, so that nothing is left to be learned.

Huang et al., "Unlearnable Examples", ICLR 2021 (EM); Fu et al., "Robust Unlearnable Examples", ICLR 2022 (REM); Liu,
Xu, Chen and Sun, "Stable Unlearnable Example", AAAI 2024 (SEM). The three differ in how a batch is perturbed while its
noise is made, and in how the surrogate is trained; the loop is one (:mod:`unlearnable.protections._bilevel`).
"""

import hashlib
import json
import shutil
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self

import numpy as np

from unlearnable.budgets import Linf
from unlearnable.errors import NotLearnedError, expected, needing
from unlearnable.keys import Key
from unlearnable.pictures.destination import publish, writing
from unlearnable.protections.base import Classed, Layer, protections
from unlearnable.protections.noise import Noise
from unlearnable.protections.settings import RUN, Settings, Status, preset

if TYPE_CHECKING:
    from torch import nn

    from unlearnable.pictures.dataset import Dataset
    from unlearnable.protections._bilevel import Member, Perturb
    from unlearnable.training.objectives import Objective

SURROGATE: Final = "surrogate.safetensors"
"""The file, in the folder of a run, of a surrogate that is trained beforehand."""

_BORDER: Final = 8  # the canvas's side is so many times the black border that views are cut from: 4 pixels of 32


@dataclass(frozen=True, kw_only=True)
class AdditiveNoise(Layer):
    """A method that makes noise with a surrogate network.

    preset: a name of :data:`unlearnable.protections.settings.PRESETS`; model, steps, noise_steps, samples, batch_size:
    in place of the preset's. seed: tells runs of one key apart. radius: the most that a sample changes by, in grey
    levels of 255; if masked, in a place of ordinary contrast. per: "picture" for noise of each picture's own, "class"
    for one pattern a class. size: side of the canvas that noise is made on, 8 to 512 pixels; by default the pictures'
    own up to 64, or else 64. masking: how the radius of a place goes with the contrast there, from 0, the same
    everywhere, to 2 (see :mod:`unlearnable.protections.masking`); noise of classes knows no places.

    Raises InputError for values out of range.
    """

    learns_clean: ClassVar[bool] = False
    """Whether the surrogate learns from clean pictures, and not from those that the noise is added to."""

    preset: str = "fast"
    model: str | None = None
    steps: int | None = None
    noise_steps: int | None = None
    samples: int | None = None
    batch_size: int | None = None
    seed: int = 0
    radius: float = 8
    per: Literal["picture", "class"] = "picture"
    size: int | None = None
    masking: float = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        _check_levels("radius", self.radius, 1, 127)
        if self.per not in ("picture", "class"):
            raise expected("noise per picture or per class", repr(self.per), "say one of the two")
        if self.size is not None and not 8 <= self.size <= 512:
            raise expected("a canvas of 8 to 512 pixels", str(self.size), "32 is usual for small pictures")
        if not 0 <= self.masking <= 2:
            raise expected("masking from 0 to 2", f"{self.masking:g}", "say 1 for a radius that goes with the contrast")
        if self.masking and self.per == "class":
            raise expected("noise per picture, with masking", "noise per class", "leave one of the two out")
        self.settings()

    def settings(self) -> Settings:
        """Return the preset's settings with what was given in their place."""
        chosen = preset(self.preset)
        names = ("model", "steps", "noise_steps", "samples", "batch_size")
        return replace(chosen, **{name: getattr(self, name) for name in names if getattr(self, name) is not None})

    def parameters(self) -> dict[str, int | float | str | None]:
        """Return every field, but for masking where there is none.

        So what was made before there was a choice is described as it was.
        """
        return {name: value for name, value in asdict(self).items() if (name, value) != ("masking", 0)}

    def scaled(self, share: float) -> Self:
        """Return it at a share of its radius, in whole grey levels, one at least."""
        return replace(self, radius=max(1, round(share * self.radius)))

    def fit(
        self,
        dataset: Classed,
        key: Key,
        *,
        clean: Classed | None = None,
        state: Path | None = None,
        progress: Callable[[Status], None] | None = None,
        device: str | None = None,
    ) -> Noise:
        """Make the noise of a data set, a :class:`unlearnable.pictures.dataset.Dataset`.

        Neither the order of the pictures nor that of the classes matters. clean: the same pictures before anything was
        done to them, in the same order, for a method that ``learns_clean``; ``dataset`` if not given. state: a folder
        for the run (see :func:`unlearnable.protections._bilevel.fit_noise`); as secret as the key, and the caller's to
        remove.
        """
        from unlearnable.pictures.dataset import Dataset

        with needing("train"):
            from torch import OutOfMemoryError

            from unlearnable.protections._bilevel import fit_noise

        if not isinstance(dataset, Dataset):
            raise expected("pictures to make noise for", "class names alone", "give it a data set")
        order = np.array(sorted(range(len(dataset)), key=dataset.ids.__getitem__), np.int64)
        data = _sorted_classes(dataset)
        before = data
        if self.learns_clean:
            before = _sorted_classes(clean) if isinstance(clean, Dataset) else data
            if (before.ids, before.images.shape) != (data.ids, data.images.shape):
                raise ValueError("expected the same pictures, clean, found others")
            before = before.select(order)
        height, width, _ = data.images.shape[1:]
        if height != width:
            raise expected("square pictures", f"{width} x {height}", "load them with a size")
        ids = tuple(data.ids[place] for place in order.tolist())
        if state is not None:
            self._claim(state, key, data)
            if (done := state / "noise.safetensors").exists():
                return Noise.load(done)
        seed = int.from_bytes(key.derive("noise", type(self).__name__, {"seed": self.seed}), "little")
        settings = self.settings()
        budget = Linf.of_255(self.radius)
        try:
            fitted = fit_noise(
                data,
                network=self._surrogate(before, seed, state, device, progress),
                member=self.member(height),
                settings=settings,
                radius=budget,
                seed=seed,
                masking=self.masking,
                order=order,
                per_class=self.per == "class",
                state=state,
                about={"method": type(self).__name__, "model": settings.model},
                device=device,
                progress=progress,
            )
        except BaseException as error:
            if state is not None and (isinstance(error, FloatingPointError | NotLearnedError) or not _begun(state)):
                shutil.rmtree(state, ignore_errors=True)  # there is nothing to go on from
            if isinstance(error, OutOfMemoryError):
                found = f"too little for {settings.model} and a canvas of {height} pixels"
                remedy = "choose a smaller --size, or another --model"
                raise expected("memory enough on the GPU", found, remedy) from error
            raise
        noise = Noise(
            data.class_names,
            ids,
            fitted.patterns,
            fitted.by_class,
            radius=int(self.radius),
            masking=self.masking,
            method=type(self).__name__,
        )
        if state is None:
            return noise
        noise.save(done)
        (state / "noise.npy").unlink(missing_ok=True)
        return Noise.load(done)

    def _claim(self, state: Path, key: Key, data: "Dataset") -> None:
        """Enter the options of a run in its folder. Raises InputError, and says which, where a run had others."""
        path = state / "options.json"
        digest = hashlib.sha256(json.dumps([data.fingerprint(), data.ids]).encode()).hexdigest()
        options = {
            "method": type(self).__name__,
            "key": key.check_value,
            **asdict(self),
            "size": data.images.shape[1],
            "pictures": f"{len(data)} with digest {digest[:12]}",
        }
        network = Path(self.settings().model)
        if network.suffix == ".safetensors" and network.is_file():  # another network may have come under its name
            with network.open("rb") as file:
                options["network"] = f"with digest {hashlib.file_digest(file, 'sha256').hexdigest()[:12]}"
        if not _begun(state):
            with writing(path):
                shutil.rmtree(state, ignore_errors=True)
                state.mkdir(parents=True, mode=0o700)
            publish(json.dumps(options).encode(), path.with_name(path.name + ".partial"), path)
            return
        found = {"against": "crops", "masking": 0} | json.loads(path.read_bytes())  # as before there was a choice
        if other := [name for name in options if found.get(name) != options[name]]:
            name = other[0]
            raise expected(
                f"the options of the run in {state} ({name} {found.get(name)})",
                f"{name} {options[name]}",
                "start it with the same options, or remove that folder",
            )

    def _surrogate(
        self,
        data: "Dataset",
        seed: int,
        state: Path | None,
        device: str | None,
        progress: Callable[[Status], None] | None,
    ) -> "Callable[[], nn.Module]":
        """Return what gives the surrogate, as the loop is to begin with it."""
        from unlearnable.models import build

        _, height, _, channels = data.images.shape
        return partial(build, self.settings().model, classes=len(data.class_names), channels=channels, size=height)

    @abstractmethod
    def member(self, side: int) -> "Member":
        """Return what tells this method from its relatives, on a canvas of so many pixels."""


def _begun(state: Path) -> bool:
    """Tell whether the folder of a run holds anything that it could go on from."""
    return any((state / name).exists() for name in (RUN, SURROGATE, "noise.safetensors"))


def _check_levels(name: str, levels: float, least: float, most: float) -> None:
    if not least <= levels <= most:
        wanted = f"a {name} from {least:g} to {most:g} grey levels (of 255)"
        raise expected(wanted, f"{levels:g}", "the papers take 8")


def _sorted_classes(dataset: "Dataset") -> "Dataset":
    """Renumber the classes in the order of their names, so that the order they came in decides nothing."""
    names = tuple(sorted(dataset.class_names))
    if names == dataset.class_names:
        return dataset
    places = np.array([names.index(name) for name in dataset.class_names], np.int64)
    return replace(dataset, labels=places[dataset.labels], class_names=names)


@dataclass(frozen=True, kw_only=True)
class Robust(AdditiveNoise):
    """What REM, SEM and decoys have in common: transformations, and a surrogate that is trained adversarially.

    inner_radius: of the perturbation that noise is made to withstand, in grey levels of 255; 0 for none. Where noise is
        masked it goes with contrast, too (:class:`unlearnable.attacks.masked.MaskedPGD`).
    against: what else it is made to withstand: "crops" as in the papers, or "countermeasures" as well (see
        :mod:`unlearnable.protections.countered`).
    """

    inner_radius: float = 4
    against: Literal["crops", "countermeasures"] = "crops"

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        _check_levels("radius of the inner perturbation", self.inner_radius, 0, 255)
        if self.against not in ("crops", "countermeasures"):
            raise expected("noise against crops or countermeasures", repr(self.against), "say one of the two")

    def parameters(self) -> dict[str, int | float | str | None]:
        """Return every field, but for what a method is made against where that is as in the papers.

        So what was made before there was a choice is described as it was.
        """
        return {name: value for name, value in super().parameters().items() if (name, value) != ("against", "crops")}

    def scaled(self, share: float) -> Self:
        """Return it at a share of both its radii."""
        weaker = super().scaled(share)
        return replace(weaker, inner_radius=round(self.inner_radius * weaker.radius / self.radius, 6))

    def _transformed(self, side: int) -> "dict[str, Any]":
        """Return what a member is made with whose pictures are transformed, on a canvas of so many pixels."""
        from unlearnable.protections.countered import Countered
        from unlearnable.protections.crop_flip import CropFlip

        countered = Countered() if self.against == "countermeasures" else None
        return {"transform": CropFlip(padding=side // _BORDER), "countered": countered}

    def _chance(self) -> "Perturb":
        from unlearnable.protections._bilevel import UniformNoise, Unperturbed

        if not self.inner_radius:
            return Unperturbed()
        return UniformNoise(budget=Linf.of_255(self.inner_radius), masking=self.masking)

    def _adversarial(self) -> "Objective":
        from unlearnable.attacks.masked import MaskedPGD
        from unlearnable.attacks.pgd import PGD
        from unlearnable.training.objectives import Adversarial, CrossEntropy

        if not self.inner_radius:
            return CrossEntropy()
        budget, steps = Linf.of_255(self.inner_radius), self.settings().inner_steps
        if self.masking:
            return Adversarial(attack=MaskedPGD(budget=budget, steps=steps, masking=self.masking))
        return Adversarial(attack=PGD(budget=budget, steps=steps, step_size=2 * budget.radius / steps))


@protections.register("em")
@dataclass(frozen=True, kw_only=True)
class EM(AdditiveNoise):
    """Error-minimizing noise: nothing is perturbed, and the surrogate is trained as everybody trains."""

    def settings(self) -> Settings:
        """Return the settings; one sample is all there is of pictures that are not transformed."""
        if self.samples not in (None, 1):
            raise expected("one sample a step for em", str(self.samples), "leave samples out: all would be the same")
        return replace(super().settings(), samples=1)

    def member(self, side: int) -> "Member":
        """Return EM: pictures as they are."""
        from unlearnable.protections._bilevel import Member, Unperturbed
        from unlearnable.training.objectives import CrossEntropy

        return Member(perturb=Unperturbed(), objective=CrossEntropy(), transform=None)


@protections.register("rem")
@dataclass(frozen=True, kw_only=True)
class REM(Robust):
    """Robust error-minimizing noise: made, like its surrogate, against an adversary."""

    def member(self, side: int) -> "Member":
        """Return REM: an adversary inside, and one for the surrogate."""
        from unlearnable.protections._bilevel import Member, Perturb, Unperturbed
        from unlearnable.training.objectives import Adversarial

        objective = self._adversarial()
        perturb: Perturb = objective.attack if isinstance(objective, Adversarial) else Unperturbed()
        return Member(perturb=perturb, objective=objective, **self._transformed(side))


@protections.register("sem")
@dataclass(frozen=True, kw_only=True)
class SEM(Robust):
    """Stable error-minimizing noise: made against chance, with a surrogate that is trained against an adversary."""

    def member(self, side: int) -> "Member":
        """Return SEM: chance inside, and an adversary for the surrogate."""
        from unlearnable.protections._bilevel import Member

        return Member(perturb=self._chance(), objective=self._adversarial(), **self._transformed(side))
