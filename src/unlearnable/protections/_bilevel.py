"""The loop behind EM, REM, SEM, TAP and decoys: noise and surrogate by turns, then one pass that writes every pattern.

Liu, Xu, Chen and Sun, "Stable Unlearnable Example", AAAI 2024 (SEM); Fu et al., "Robust Unlearnable Examples", ICLR
2022 (REM); Huang et al., "Unlearnable Examples", ICLR 2021 (EM). A step takes a batch, makes its noise against the
surrogate as it is, and trains the surrogate on the batch with that noise. Noise starts from chance every time, so that
nothing of it lasts but what the surrogate has learned: the last pass, with the surrogate at rest, makes what is kept.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn, optim

from unlearnable.attacks.base import cross_entropy, frozen
from unlearnable.attacks.masked import shares
from unlearnable.budgets import Linf
from unlearnable.errors import NotLearnedError, expected
from unlearnable.pictures.dataset import Dataset
from unlearnable.protections.countered import Countered
from unlearnable.protections.crop_flip import CropFlip
from unlearnable.protections.masking import loudest, masked
from unlearnable.protections.noise import Pattern, check_room
from unlearnable.protections.settings import RUN, Settings, Status
from unlearnable.training.chance import derived, generator, seeded
from unlearnable.training.checkpoint import Snapshot, load_run, save_run
from unlearnable.training.loop import interruptible
from unlearnable.training.meter import GradientMeter
from unlearnable.training.objectives import Adversarial, Objective
from unlearnable.training.precision import Precision, autocast, default_device
from unlearnable.training.recipes import described
from unlearnable.training.schedule import rate

_PATTERNS: Final = "noise.npy"  # in the folder of a run
_SAVE_SECONDS: Final = 60.0  # of work that kill -9 can lose
_AT_ONCE: Final = {"cuda": 1 << 20}  # pixels that go through the network in one batch of samples
_AT_ONCE_ELSEWHERE: Final = 1 << 17  # more makes a processor no faster, and takes gigabytes
_MEMORY: Final = 0.95  # share of the running loss that a step leaves
_ENOUGH: Final = 100  # steps after which a surrogate must have learned something
_CHANCE: Final = 0.98  # share of the loss of guessing that it must have come below
_CHANCE_HALFWAY: Final = 0.99  # the same, at half the steps
_REMEDY: Final = "choose another --model or --seed"


class Perturb(Protocol):
    """How a batch is perturbed inside a step of the noise: every attack is one."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, /) -> Tensor:
        """Return perturbed pictures, detached, within 0 to 1."""
        ...


@dataclass(frozen=True, kw_only=True)
class Unperturbed:
    """EM: not at all."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, /) -> Tensor:
        """Return the pictures."""
        return images


@dataclass(frozen=True, kw_only=True)
class UniformNoise:
    """SEM: one uniform draw from the ball, at the cost of no pass through the network.

    masking: how the radius goes with the contrast of a place; 0 for one radius everywhere.
    """

    budget: Linf
    masking: float = 0

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, /) -> Tensor:
        """Return noisy pictures."""
        noise = self.budget.start(images, generator)
        if self.masking:
            noise *= shares(images, self.masking)
        return (images + noise).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class Member:
    """What tells one member of the family from another.

    perturb: of the inner batch. objective: the surrogate is trained with; None if it comes trained. transform: what
    the expectation goes over, and the surrogate is trained under; None for pictures as they are. countered: what
    scrapers do to what is transformed, before anything perturbs it; None for nothing. shift: the noise leads towards
    the label so many classes on. shuffled: in an order of the classes that is drawn from the seed, and not in that of
    their names. ascend: it leads away from that label instead. reach: how many radii the steps of a batch's noise go
    together.
    """

    perturb: Perturb
    objective: Objective | None
    transform: CropFlip | None
    countered: Countered | None = None
    shift: int = 0
    ascend: bool = False
    shuffled: bool = False
    reach: float = 2.0

    def passes(self, settings: Settings, *, per_class: bool = False) -> tuple[int, int]:
        """Count the passes, forward and backward, of one picture: in a step, and in the last pass.

        Noise takes noise_steps x samples x (1 + the adversary's steps), and training the adversary's steps and one.
        """
        inner = int(getattr(self.perturb, "steps", 0))
        noise = (1 if per_class else settings.noise_steps) * settings.samples * (1 + inner)
        adversary = int(getattr(self.objective.attack, "steps", 0)) if isinstance(self.objective, Adversarial) else 0
        return (noise + adversary + 1 if self.objective else 0), noise


def optimised(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    start: Tensor,
    *,
    member: Member,
    steps: int,
    samples: int,
    step_size: float | Tensor,
    radius: float | Tensor,
    chance: torch.Generator,
    labels: Tensor | None = None,
    owner: Tensor | None = None,
    precision: Precision = "auto",
) -> Tensor:
    """Descend the cross-entropy of a batch in its noise, over so many sign steps with so many samples each.

    The gradient at the transformed and perturbed picture is taken as that at what it perturbs, and carried back
    through what scrapers do, transformation and range. The network is as in evaluation, and left as it was.

    images: (count, channels, height, width), 0 to 1. start: noise of the same shape; or, with ``owner``, (groups,
    channels, height, width), where picture i shares the noise of group ``owner[i]``. step_size, radius: everywhere, or,
    without ``owner``, of each place, (count, 1, height, width). labels: the classes that scrapers take the pictures
    for, if these are not the targets.

    Raises FloatingPointError where a gradient is no number.
    """
    count, _, height, width = images.shape
    limit = _AT_ONCE.get(images.device.type, _AT_ONCE_ELSEWHERE)
    at_once = max(1, limit // (count * height * width))
    noise, known = start, targets if labels is None else labels
    sound = torch.ones((), dtype=torch.bool, device=images.device)
    climb = step_size if member.ascend else -step_size
    most = torch.as_tensor(radius, dtype=noise.dtype, device=noise.device)
    with frozen(network):
        for _ in range(steps):
            wanted = images + (noise if owner is None else noise[owner])
            seen = wanted.clamp(0, 1)
            gradient = torch.zeros_like(images)
            for first in range(0, samples, at_once):
                copies = min(at_once, samples - first)
                gradient += _gradient(network, seen, targets, known, copies, member, chance, precision)
            sound &= gradient.isfinite().all()  # asked for once, at the end; the sign of what is no number is 0
            gradient *= seen == wanted  # beyond the range nothing changes
            if owner is not None:
                gradient = torch.zeros_like(noise).index_add_(0, owner, gradient)
            noise = (noise + climb * gradient.sign()).clamp(-most, most)
    if not sound:
        raise FloatingPointError(f"the gradient that noise is made with is no number any more: {_REMEDY}")
    return noise


def _gradient(
    network: nn.Module,
    seen: Tensor,
    targets: Tensor,
    labels: Tensor,
    copies: int,
    member: Member,
    chance: torch.Generator,
    precision: Precision,
) -> Tensor:
    """Sum the gradient with respect to a batch over some draws of the transformation, all in one batch."""
    count, _, height, width = seen.shape
    drawn = targets.repeat(copies)
    crops = None
    if member.transform is None:
        views = seen.repeat(copies, 1, 1, 1)
    else:
        crops = member.transform.draw(count * copies, height, width, chance)
        views = member.transform.apply(seen, crops)
    views = views.detach().requires_grad_()
    shown = views if member.countered is None else member.countered(views, labels.repeat(copies), chance)
    with autocast(seen.device, precision):
        disturbed = member.perturb(network, shown.detach(), drawn, chance).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(network(disturbed), drawn).sum(), disturbed)
    if member.countered is not None:
        (gradient,) = torch.autograd.grad(shown, views, gradient)
    if crops is None or member.transform is None:
        return gradient.reshape(copies, *seen.shape).sum(0)
    return member.transform.adjoint(gradient, crops, count)


@dataclass(frozen=True)
class Fitted:
    """What the loop ends with.

    patterns: (count, height, width, channels) int8, in the order asked for; empty for noise a class. by_class: of each
    class, zero for one without pictures. model: the surrogate. loss: its running loss on protected pictures. gradients:
    pictures passed forward and backward.
    """

    patterns: Pattern
    by_class: Pattern
    model: nn.Module
    loss: float
    gradients: int


class _Held(nn.Module):
    """Noise a class, (classes, channels, height, width), kept between steps."""

    noise: Tensor

    def __init__(self, noise: Tensor) -> None:
        super().__init__()
        self.register_buffer("noise", noise)


def fit_noise(
    dataset: Dataset,
    *,
    network: Callable[[], nn.Module],
    member: Member,
    settings: Settings,
    radius: Linf,
    seed: int,
    masking: float = 0,
    order: NDArray[np.int64] | None = None,
    per_class: bool = False,
    state: Path | None = None,
    about: dict[str, Any] | None = None,
    device: str | None = None,
    precision: Precision = "auto",
    progress: Callable[[Status], None] | None = None,
) -> Fitted:
    """Make noise for every picture of a data set, and for each of its classes.

    Same arguments, same kind of device: same noise. seed: of everything random; as secret as the noise.
    masking: how the radius of each picture's own noise goes with the contrast of a place (see
        :func:`unlearnable.protections.masking.masked`); 0 for one radius everywhere.
    order: which pictures, in which order; all, as they come, if not given.
    state: folder that the run is written down in once a minute, at Ctrl-C and at its end, and goes on from to the same
        noise as if it had never stopped. The noise lies in a file there, mapped into memory.
    about: more of what decides the run; what goes on from ``state`` must have the same.

    Raises InputError for what cannot be protected, a state of other options, too small a disk, and a surrogate that
    does not learn; FloatingPointError where numbers are none any more.
    """
    fit = _Fit(dataset, network, member, settings, radius, seed, masking, order, per_class, device, precision)
    return fit.run(state, about or {}, progress)


class _Fit:
    """One run of :func:`fit_noise`."""

    def __init__(
        self,
        dataset: Dataset,
        network: Callable[[], nn.Module],
        member: Member,
        settings: Settings,
        radius: Linf,
        seed: int,
        masking: float,
        order: NDArray[np.int64] | None,
        per_class: bool,
        device: str | None,
        precision: Precision,
    ) -> None:
        self.dataset, self.build, self.member, self.settings = dataset, network, member, settings
        self.radius, self.seed, self.masking = radius, seed, masking
        self.per_class, self.precision = per_class, precision
        self.order = np.arange(len(dataset)) if order is None else order
        self.labels = torch.from_numpy(dataset.labels[self.order])
        self.place = torch.device(device or default_device())
        self.classes = len(dataset.class_names)
        self.levels = math.floor(255 * radius.radius + 1e-6)
        self.loudest = loudest(255 * radius.radius) if masking else self.levels
        present = np.bincount(dataset.labels, minlength=self.classes)
        check_classes(dict(zip(dataset.class_names, present.tolist(), strict=True)))
        self.absent = torch.from_numpy(present == 0)
        self.targets = self._targets(np.flatnonzero(present))
        self.guessing = guessing(dataset.labels)
        self.batches = math.ceil(len(self.order) / settings.batch_size)
        self.steps = settings.steps if member.objective is not None else 0
        self.total = self.steps + self.batches + (0 if per_class else self.classes)

    def run(self, state: Path | None, about: dict[str, Any], progress: Callable[[Status], None] | None) -> Fitted:
        """Do what is left of the run."""
        shape = (0 if self.per_class else len(self.order), *self.dataset.images.shape[1:])
        if state is not None:
            _reserve(state, shape)  # before a surrogate is built, which may be trained for hours
        with seeded(derived(self.seed, "network"), self.place), interruptible() as interrupted:
            model = self.build().to(self.place).to(memory_format=torch.channels_last).train()
            optimizer = optim.SGD(model.parameters(), self.settings.learning_rate, momentum=0.9, weight_decay=5e-4)
            held = _Held(self._start(self.classes, "classes").contiguous())
            held.noise[self.absent] = 0  # chance alone would look like noise
            parts: dict[str, nn.Module] = {"model": model, "noise": held}
            snapshot = Snapshot(step=0, totals=torch.zeros(2, dtype=torch.float64))
            patterns: Pattern = np.zeros(shape, np.int8)
            if state is not None:
                about = self._about() | about
                if (state / RUN).exists():
                    snapshot = load_run(state / RUN, about, parts, optimizer)
                else:
                    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
                    check_room(state, math.prod(shape) + 4 * weights)  # noise once more; momentum; old and new
                patterns = _mapped(state, shape)
            started, began = time.monotonic(), self._passes(snapshot.step)
            saved = started
            with closing(GradientMeter(model, snapshot.gradients)) as meter:

                def save() -> None:
                    if state is not None:
                        snapshot.gradients = meter.count
                        if isinstance(patterns, np.memmap):
                            patterns.flush()
                        save_run(state / RUN, about, snapshot, parts, optimizer)

                while snapshot.step < self.total:
                    self._one(snapshot, model, optimizer, held, patterns)
                    snapshot.step += 1
                    now = time.monotonic()
                    if progress is not None:
                        done = self._passes(snapshot.step)
                        left = (now - started) * (self._passes(self.total) - done) / max(1, done - began)
                        loss, error = snapshot.totals.tolist()
                        known = error > 0  # not where there is nothing to train
                        psnr = -10 * math.log10(error) if known else None
                        progress(Status(snapshot.step, self.total, loss if known else None, psnr, left, meter.count))
                    if interrupted() or now - saved > _SAVE_SECONDS or snapshot.step == self.total:
                        save()
                        saved = now
                    if interrupted():
                        raise KeyboardInterrupt
                gradients = meter.count
        by_class = _whole(held.noise, self.levels)
        return Fitted(patterns, by_class, model.requires_grad_(True).eval(), float(snapshot.totals[0]), gradients)

    def _about(self) -> dict[str, Any]:
        """Describe all that decides the run, in JSON's values. The seed shows as a digest: it is a secret."""
        member = described(self.member)
        if member["countered"] is None:
            del member["countered"]  # runs of before there was such a thing go on
        for name in ("shuffled", "reach"):
            if member[name] == getattr(Member, name):
                del member[name]
        ids = json.dumps([self.dataset.ids[place] for place in self.order.tolist()])
        masking = {"masking": self.masking} if self.masking else {}
        return {
            "seed": hashlib.sha256(f"noise {self.seed}".encode()).hexdigest()[:16],
            "radius": self.radius.radius,
            "per_class": self.per_class,
            "precision": self.precision,
            "pictures": self.dataset.fingerprint(),
            "ids": hashlib.sha256(ids.encode()).hexdigest(),
            **masking,
            **{name: value for name, value in vars(self.settings).items() if name != "model"},
            **{f"member_{name}": value for name, value in member.items()},
        }

    def _one(
        self, snapshot: Snapshot, model: nn.Module, optimizer: optim.Optimizer, held: _Held, patterns: Pattern
    ) -> None:
        """Do one step: of the two by turns, of the last pass, or of the noise a class."""
        step = snapshot.step
        torch.manual_seed(derived(self.seed, "global", step))  # for dropout
        if step < self.steps:
            self._train(snapshot, model, optimizer, held)
            if step + 1 in (self.steps // 2, self.steps):
                share = _CHANCE if step + 1 == self.steps else _CHANCE_HALFWAY
                check_learned(float(snapshot.totals[0]), self.guessing, step + 1, share=share)
        elif step < self.steps + self.batches:
            number = step - self.steps
            places = torch.arange(len(self.order))
            if self.member.countered is not None:  # in folders the pictures of a class follow one another
                places = torch.randperm(len(self.order), generator=generator("cpu", self.seed, "last pass"))
            index = places.tensor_split(self.batches)[number]
            noise = self._noise(model, index, *self._batch(index), held, "last pass", number)
            if not self.per_class:
                patterns[index.numpy()] = _whole(noise, self.loudest)
        else:
            self._of_class(step - self.steps - self.batches, model, held)

    def _train(self, snapshot: Snapshot, model: nn.Module, optimizer: optim.Optimizer, held: _Held) -> None:
        step, objective = snapshot.step, self.member.objective
        assert objective is not None  # noqa: S101 - there are no steps without one
        epoch, number = divmod(step, self.batches)
        shuffled = torch.randperm(len(self.order), generator=generator("cpu", self.seed, "order", epoch))
        index = shuffled.tensor_split(self.batches)[number]
        images, labels = self._batch(index)
        noise = self._noise(model, index, images, labels, held, "noise", step)
        whole = (255 * noise).round().clamp(-self.loudest, self.loudest) / 255
        protected = (images + whole).clamp(0, 1)
        chance = generator(self.place, self.seed, "train", step)
        views = protected
        if (transform := self.member.transform) is not None:
            views = transform.apply(protected, transform.draw(len(views), views.shape[2], views.shape[3], chance))
        if (countered := self.member.countered) is not None:
            views = countered(views, labels, chance)
        for group in optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * rate("step", step, self.steps)
        with autocast(self.place, self.precision):
            loss, _ = objective(model, views, labels, 0.0, chance)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        now = torch.stack([loss.detach(), (protected - images).square().mean()]).double().cpu()
        if not now.isfinite().all():
            raise FloatingPointError(f"the surrogate's loss is {now[0]:g} in step {step + 1}: {_REMEDY}")
        snapshot.totals = now if step == 0 else snapshot.totals * _MEMORY + now * (1 - _MEMORY)

    def _noise(
        self, model: nn.Module, index: Tensor, images: Tensor, labels: Tensor, held: _Held, purpose: str, number: int
    ) -> Tensor:
        """Make the noise of a batch, from a start of its own; or, for noise a class, lead that a step on."""
        if not self.per_class:
            radius = self._radius(index)
            start = self._start(len(images), purpose, number) * (radius / self.radius.radius)
            return self._optimised(model, images, labels, start, radius, purpose, number)
        noise = self._optimised(
            model, images, labels, held.noise, self.radius.radius, purpose, number, owner=labels, steps=1
        )
        held.noise.copy_(noise)
        return noise[labels]

    def _of_class(self, label: int, model: nn.Module, held: _Held) -> None:
        """Make one class's noise from a batch of its pictures, spread over all of them."""
        own = torch.nonzero(self.labels == label).flatten()
        if not len(own):
            return
        index = own[torch.linspace(0, len(own) - 1, min(len(own), self.settings.batch_size)).round().long()]
        images, labels = self._batch(index)
        start, shared = held.noise[label : label + 1], torch.zeros_like(labels)
        held.noise[label : label + 1] = self._optimised(
            model, images, labels, start, self.radius.radius, "class", label, owner=shared
        )

    def _optimised(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        start: Tensor,
        radius: float | Tensor,
        purpose: str,
        number: int,
        owner: Tensor | None = None,
        steps: int | None = None,
    ) -> Tensor:
        return optimised(
            model,
            images,
            self.targets.to(self.place)[labels],
            start,
            member=self.member,
            steps=self.settings.noise_steps if steps is None else steps,
            samples=self.settings.samples,
            step_size=self.member.reach * radius / self.settings.noise_steps,
            radius=radius,
            chance=generator(self.place, self.seed, purpose, number),
            labels=labels,
            owner=owner,
            precision=self.precision,
        )

    def _targets(self, present: NDArray[np.int64]) -> Tensor:
        """Return what the noise of each class leads towards, (classes,)."""
        order = torch.arange(self.classes)
        if self.member.shuffled:  # by name, so that a new class comes between two; among those a surrogate can know
            names = self.dataset.class_names
            order = torch.tensor(sorted(present.tolist(), key=lambda one: derived(self.seed, "target", names[one])))
        targets = torch.arange(self.classes)
        targets[order] = order.roll(-self.member.shift)
        return targets

    def _start(self, count: int, *purpose: str | int) -> Tensor:
        height, width, channels = self.dataset.images.shape[1:]
        chance = generator(self.place, self.seed, "start", *purpose)
        empty = torch.empty(count, channels, height, width, device=self.place)
        return self.radius.start(empty, chance).contiguous(memory_format=torch.channels_last)

    def _radius(self, index: Tensor) -> float | Tensor:
        """Return how far the noise of a batch may go, from 0 to 1: everywhere, or (count, 1, height, width)."""
        if not self.masking:
            return self.radius.radius
        levels = masked(self.dataset.images[self.order[index.numpy()]], 255 * self.radius.radius, self.masking)
        return torch.from_numpy(levels)[:, None].to(self.place) / 255

    def _batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        pictures = torch.from_numpy(self.dataset.images[self.order[index.numpy()]]).to(self.place)
        return pictures.permute(0, 3, 1, 2) / 255, self.labels[index].to(self.place)

    def _passes(self, step: int) -> int:
        """Count the passes of a picture until a step, about: batches as if all were full."""
        training, last = self.member.passes(self.settings, per_class=self.per_class)
        return min(step, self.steps) * training + max(0, step - self.steps) * last


def guessing(labels: NDArray[np.int64]) -> float:
    """Return the mean cross-entropy of a network that knows no more than the shares of the classes.

    >>> round(guessing(np.array([0, 1])), 3)
    0.693
    """
    counts = np.bincount(labels)
    shares = counts[counts > 0] / len(labels)
    return float(-(shares * np.log(shares)).sum())


def check_classes(counts: Mapping[str, int]) -> None:
    """Raise InputError where there are no two classes to tell apart, or one of a single picture.

    counts: pictures by class; a class of none counts for nothing.
    """
    present = {name: count for name, count in counts.items() if count}
    if len(present) < 2:
        remedy = "add pictures of other classes, or use a method that needs no network, such as cuda"
        raise expected("pictures of two classes at least", f"{sum(present.values())} of {len(present)}", remedy)
    for name, count in present.items():
        if count == 1:
            remedy = "add pictures of it, or take it out"
            raise expected("two pictures of each class at least", f"one of {name!r}", remedy)


def check_learned(
    loss: float, by_guessing: float, steps: int, pictures: str = "protected", share: float = _CHANCE
) -> None:
    """Raise NotLearnedError where a surrogate has had steps enough, and its loss is hardly below that of guessing."""
    if steps >= _ENOUGH and loss > share * by_guessing:
        wanted = f"a surrogate that learns the {pictures} pictures (a loss below {share * by_guessing:.3f})"
        found = f"{loss:.3f} after {steps} steps, about as by guessing"
        raise NotLearnedError(expected(wanted, found, "raise the steps, or choose another model"))


def _whole(noise: Tensor, levels: int) -> Pattern:
    """Round noise to whole grey levels, (count, height, width, channels) int8."""
    rounded = (255 * noise).round().clamp(-levels, levels).to(torch.int8)
    return rounded.permute(0, 2, 3, 1).cpu().numpy()


def _reserve(state: Path, shape: Sequence[int]) -> None:
    """Make the noise file of a run, with all its room, if it is not there.

    Raises InputError where the disk has no room for it, and for the copy of it that is kept.
    """
    path = state / _PATTERNS
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not shape[0] or path.exists():
        return
    check_room(state, 2 * math.prod(shape))
    partial = path.with_name(path.name + ".partial")
    made = np.lib.format.open_memmap(partial, "w+", np.int8, tuple(shape))
    del made
    if hasattr(os, "posix_fallocate"):  # room that is really there
        with partial.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
    os.replace(partial, path)


def _mapped(state: Path, shape: Sequence[int]) -> Pattern:
    """Map the noise file of a run into memory. Raises InputError where it is of another shape."""
    path = state / _PATTERNS
    if not shape[0]:
        return np.zeros(shape, np.int8)
    try:
        found = np.lib.format.open_memmap(path, "r+")
    except ValueError as error:
        raise expected(f"the noise of this run at {path}", f"something else ({error})", "remove it") from None
    if found.shape != tuple(shape) or found.dtype != np.int8:
        wanted = f"noise of shape {tuple(shape)} at {path}"
        raise expected(wanted, f"{found.dtype} of shape {found.shape}", "remove the folder to start anew")
    return found
