"""The training loop: one for every recipe, network and device."""

import hashlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn, optim
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from unlearnable.errors import expected
from unlearnable.models import head
from unlearnable.pictures.dataset import Dataset
from unlearnable.training import distributed
from unlearnable.training.augmentation import draw_moves, moved
from unlearnable.training.chance import derived, generator, seeded
from unlearnable.training.checkpoint import Epoch, Snapshot, Split, load_run, save_run
from unlearnable.training.holdout import Judge
from unlearnable.training.loader import batches
from unlearnable.training.meter import GradientMeter
from unlearnable.training.precision import Precision, autocast, default_device
from unlearnable.training.recipes import Recipe
from unlearnable.training.rsr.lasso import add_lasso
from unlearnable.training.rsr.noise import inject_noise, strengths
from unlearnable.training.schedule import rate

_SAVE_SECONDS: Final = 60.0  # of work that kill -9 can lose


class Change(Protocol):
    """What is done to every batch after crop and flip: a countermeasure's part of the training.

    A change that keeps a state from batch to batch is an ``nn.Module`` with that state in its buffers.
    """

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator, /) -> Tensor:
        """Return new pictures for (count, channels, height, width) floats, 0 to 1, and (count,) labels."""
        ...


@dataclass(frozen=True)
class Trained:
    """What training gives: the network in evaluation mode, its epochs, and what it cost.

    gradients: pictures passed forward and backward (:class:`unlearnable.training.meter.GradientMeter`).
    splits: how each step's pictures were sorted, with an accelerated recipe; empty with any other.
    """

    model: nn.Module
    history: list[Epoch]
    gradients: int
    splits: list[Split] = field(default_factory=list)


def train(
    dataset: Dataset,
    *,
    model: Callable[[], nn.Module],
    recipe: Recipe,
    change: Change | None = None,
    seed: int = 0,
    device: str | None = None,
    precision: Precision = "auto",
    held_out: NDArray[np.int64] | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[int, int, Epoch | None], None] | None = None,
) -> Trained:
    """Train a classifier. Same arguments, same kind of device, as many threads and processes: same numbers.

    model: builds the network, which takes floats on the 0 to 1 scale; called under the seed.
    device: of PyTorch; a GPU where there is one, if not given.
    held_out: places of pictures that are not trained on: by them each epoch is judged, and the best one's network is
        what comes out (see :mod:`unlearnable.training.holdout`). What that takes is counted neither among an epoch's
        seconds nor in the gradients.
    checkpoint: where the run is written down once a minute, at Ctrl-C and at its end (with several processes: after
        each epoch), and goes on from if the file is there already, to the same numbers as if it had never stopped. It
        is the caller's to remove.
    progress: called after each step with steps done, steps in all and, once an epoch is over, that epoch; what it takes
        is not counted among the epoch's seconds.

    Raises FloatingPointError when the loss is no longer a number, and InputError for a data set that cannot be
    trained on or a checkpoint of another run.
    """
    place = distributed.local_device(device or default_device())
    world = distributed.world(place)
    _check(dataset, recipe)
    labels = torch.from_numpy(dataset.labels).to(place)
    height, width = dataset.images.shape[1:3]
    trained_on = np.setdiff1d(np.arange(len(dataset)), [] if held_out is None else held_out)
    in_epoch = math.ceil(len(trained_on) / recipe.batch_size)
    steps = recipe.epochs * in_epoch
    about = {"recipe": recipe.spec(), "seed": seed, "data": dataset.fingerprint(), "precision": precision}
    average: AveragedModel | None = None
    judge: Judge | None = None
    if held_out is not None:
        about["held_out"] = hashlib.sha256(held_out.tobytes()).hexdigest()
    with seeded(seed, place):
        network = _built(model, recipe).to(place).to(memory_format=torch.channels_last)
        parts: dict[str, nn.Module] = {"model": network}
        objective, memory = recipe.objective, None
        if recipe.accelerate is not None:
            objective, memory = recipe.accelerate.over(objective)
            parts["accelerate"] = memory.to(place)
        if isinstance(change, nn.Module):
            parts["change"] = change.to(place)
        if recipe.ema is not None:
            averaging = get_ema_multi_avg_fn(recipe.ema)  # type: ignore[no-untyped-call]
            parts["average"] = average = AveragedModel(network, multi_avg_fn=averaging, use_buffers=True)
        if held_out is not None:
            judge = Judge.of(network, dataset, held_out, recipe=recipe, precision=precision, seed=seed)
            parts["best"] = judge.best
        optimizer = _optimizer(network, recipe)
        run = Snapshot(step=0, totals=torch.zeros(2, dtype=torch.float64, device=place))
        if checkpoint is not None and checkpoint.exists():
            run = load_run(checkpoint, about, parts, optimizer)
            run.totals = run.totals.to(place)

        def save() -> None:
            if checkpoint is not None and distributed.is_first():
                run.gradients = meter.count
                save_run(checkpoint, about, run, parts, optimizer)

        saved = last = time.monotonic()
        _mode(network, recipe)
        plan = _order(len(trained_on), in_epoch, recipe.epochs, seed, run.step)
        places = torch.from_numpy(trained_on)
        mine = (places[index[world.rank :: world.size]] for index in plan)
        with closing(GradientMeter(network, run.gradients)) as meter, interruptible() as interrupted:
            for index, pictures, where in batches(dataset.images, place, mine):
                for group in optimizer.param_groups:
                    group["lr"] = recipe.learning_rate * rate(recipe.schedule, run.step, steps)
                chance = generator(place, seed, "step", run.step, world.rank)
                torch.manual_seed(derived(seed, "global", run.step, world.rank))  # dropout, torchvision
                moves = draw_moves(len(index), height, width, crop=recipe.crop, flip=recipe.flip, generator=chance)
                images, targets = moved(pictures, where, moves), labels[index.to(place)]
                with autocast(place, precision):
                    if change is not None:
                        images = change(network, images, targets, chance)
                    for augmentation in recipe.augmentations:
                        images, targets = augmentation(images, targets, len(dataset.class_names), chance)
                    loss, logits = objective(network, images, targets, recipe.label_smoothing, chance)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                if world.size > 1:
                    distributed.average_gradients(network)
                if recipe.clip_norm is not None:
                    nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
                optimizer.step()
                if average is not None:
                    average.update_parameters(network)
                named = targets if targets.ndim == 1 else targets.argmax(1)
                run.totals += torch.stack([loss.detach() * len(index), (logits.argmax(1) == named).sum()])
                if memory is not None:
                    run.splits.append(memory.split)
                run.step += 1
                now = time.monotonic()
                run.seconds, last = run.seconds + now - last, now
                finished = run.step % in_epoch == 0
                if finished:
                    _close_epoch(run, run.step // in_epoch, in_epoch, len(trained_on), world)
                    if judge is not None:
                        with meter.paused():
                            judge(network if average is None else average.module, run.history)
                        _mode(network, recipe)
                        last = time.monotonic()
                if progress is not None and distributed.is_first():
                    progress(run.step, steps, run.history[-1] if finished else None)
                    last = time.monotonic()
                due = interrupted() or now - saved > _SAVE_SECONDS or run.step == steps
                if finished if world.size > 1 else due:  # several processes agree on the end of an epoch alone
                    save()
                    saved = now
                if interrupted():
                    raise KeyboardInterrupt
            gradients = meter.count
    trained = network if average is None else average.module
    trained = trained if judge is None else judge.best
    return Trained(trained.requires_grad_(True).eval(), run.history, gradients, run.splits)


def _check(dataset: Dataset, recipe: Recipe) -> None:
    """Raise InputError for a data set that this recipe cannot be trained on."""
    height, width = dataset.images.shape[1:3]
    if len(dataset) < 2 or len(set(dataset.labels.tolist())) < 2:
        found = f"{len(dataset)} of {len(set(dataset.labels.tolist()))}"
        raise expected("pictures of two classes at least to train on", found, "add pictures of other classes")
    if recipe.crop >= min(height, width):
        raise expected(
            f"a crop below the pictures' {height} x {width} pixels", str(recipe.crop), "choose a smaller one"
        )


def _order(count: int, in_epoch: int, epochs: int, seed: int, done: int) -> Iterator[Tensor]:
    """Yield the batches that come after ``done`` steps: every picture once an epoch, each epoch in its own order."""
    for epoch in range(done // in_epoch, epochs):
        order = torch.randperm(count, generator=generator("cpu", seed, "order", epoch))
        # Sizes differ by one picture at most: a small last batch would upset batch normalisation.
        yield from order.tensor_split(in_epoch)[max(0, done - epoch * in_epoch) :]


def _built(model: Callable[[], nn.Module], recipe: Recipe) -> nn.Module:
    """Build the network, with noise on its weights where the recipe wants it and the network lacks it."""
    network = model()
    return inject_noise(network) if recipe.noise and not strengths(network) else network


def _optimizer(network: nn.Module, recipe: Recipe) -> optim.Optimizer:
    part = head(network) if recipe.trained == "head" else network
    groups: list[dict[str, Any]] = [{"params": list(part.parameters())}]
    if undecayed := strengths(part):  # weight decay would take the noise away
        apart = set(undecayed)
        groups = [
            {"params": [weight for weight in part.parameters() if weight not in apart]},
            {"params": undecayed, "weight_decay": 0.0},
        ]
    options: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "adamw":
        optimizer: optim.Optimizer = optim.AdamW(groups, **options)
    else:
        optimizer = optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.momentum > 0, **options)
    if recipe.lasso:
        add_lasso(optimizer, network, recipe.lasso, recipe.lasso_step)
    return optimizer


def _mode(network: nn.Module, recipe: Recipe) -> None:
    """Set what is trained; where that is the last layer, all before it is as in evaluation."""
    network.requires_grad_(recipe.trained == "all").train(recipe.trained == "all")
    if recipe.trained == "head":
        head(network).requires_grad_(True)


def _close_epoch(run: Snapshot, number: int, in_epoch: int, count: int, world: distributed.World) -> None:
    totals = distributed.add_up(run.totals) if world.size > 1 else run.totals
    loss, accuracy = (totals / count).tolist()
    if not math.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss} in epoch {number}: lower the learning rate")
    shares = [sum(group) / count for group in zip(*run.splits[-in_epoch:], strict=True)]
    run.history.append(Epoch(number, loss, accuracy, run.seconds, *shares))
    run.totals, run.seconds = torch.zeros_like(run.totals), 0.0


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Hold Ctrl-C back until a step is done, so that no half of a step is ever written down.

    Gives a function that tells whether it was pressed. Pressed twice, it stops at once.
    """
    pressed = False

    def note(number: int, frame: object) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield lambda: pressed
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
