"""A folder in, a trained network out."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from unlearnable.budgets import Budget
from unlearnable.countermeasures import compose
from unlearnable.defence import transformation_named
from unlearnable.errors import expected
from unlearnable.models import build
from unlearnable.pictures.dataset import Dataset, load
from unlearnable.training import evaluation
from unlearnable.training.bullettrain import accelerators
from unlearnable.training.checkpoint import Epoch, Network, Split, save_network
from unlearnable.training.distributed import is_first
from unlearnable.training.holdout import best, held_out, judged_by
from unlearnable.training.loop import train as run
from unlearnable.training.objectives import Adversarial
from unlearnable.training.precision import Precision, for_testing
from unlearnable.training.recipes import named as recipe_named
from unlearnable.training.rsr.noise import strengths

_PRETRAINED: Final = ("finetune", "linear-probe")

Progress = Callable[[int, int], None]
"""Told, now and then, how much is done and how much there is."""


@dataclass(frozen=True)
class TrainReport:
    """What training came to.

    checkpoint: the file with the network. report: the page, where one was asked for.
    seconds: of training, an interrupted run's of before among them; without loading, judging epochs, and testing.
    gradients: pictures passed forward and backward, attacks included; those to judge epochs by are not.
        external_gradients: those that a transformation took, of its external network.
    best_epoch: the one that was kept, where pictures were held out of training to choose by; held_out: share of those
        that it names rightly, judged_by: under this attack, None for none; held_out_pictures: how many there are.
    clean_accuracy: share of the test pictures named rightly, with its 95 % interval (Wilson).
    history: of each epoch the number, mean loss, share named rightly in training, and seconds; with ``accelerate`` also
        the shares of its pictures sorted as outlier, boundary and robust; and the share of held-out pictures.
    """

    checkpoint: str
    recipe: str
    accelerate: str | None
    model: str
    epochs: int
    clean_accuracy: float
    interval: tuple[float, float]
    seconds: float
    gradients: int
    external_gradients: int = 0
    best_epoch: int | None = None
    held_out: float | None = None
    judged_by: str | None = None
    held_out_pictures: int = 0
    history: list[Epoch] = field(default_factory=list)
    report: str | None = None


def train(
    source: str | os.PathLike[str],
    *,
    test: str | os.PathLike[str],
    out: str | os.PathLike[str],
    recipe: str = "erm",
    options: dict[str, Any] | None = None,
    accelerate: str | None = None,
    model: str = "resnet9-w16",
    weights: str | os.PathLike[str] | None = None,
    transform: str | None = None,
    external: str | os.PathLike[str] | None = None,
    size: int | None = None,
    limit: int | None = None,
    hold_out: float | None = None,
    seed: int = 0,
    device: str | None = None,
    precision: Precision = "auto",
    tensorboard: str | os.PathLike[str] | None = None,
    report: str | os.PathLike[str] | None = None,
    command: str | None = None,
    progress: Progress | None = None,
) -> TrainReport:
    """Train a network on a folder of pictures and test it on another.

    Started again with the same arguments after an interruption, it goes on where it was, to the same numbers.

    source, test: pictures (see :func:`unlearnable.pictures.dataset.load`) of the same classes.
    out: the checkpoint to write, a safetensors file that plain PyTorch loads too.
    recipe, options: a name of ``unlearnable list recipes``, and the arguments of its builder (epochs, budget ...).
    accelerate: "bullettrain" to spend the attack of a robust recipe where it teaches most (see
        :mod:`unlearnable.training.bullettrain`).
    model: a name of ``unlearnable list models``, or timm/NAME.
    weights: of a network trained before, to start from; the recipes finetune and linear-probe need them.
    transform, external: "adversarial", or "adversarial:budget=16/255,steps=10,label=least-likely" and so on, and the
        checkpoint of the network that pictures are transformed with before the new one sees them, in training and in
        use (see :mod:`unlearnable.attacks.transformation`).
    size: side of the squares that pictures are brought to; without it all must have one size.
    limit: pictures of each folder, at most; the first of each class in turn.
    hold_out: share of the training pictures, of each class, that is not trained on but tells the best epoch, by its
        accuracy, under PGD-10 for recipes that train under attack (see :mod:`unlearnable.training.holdout`). Without it
        the last epoch is kept. Test pictures choose nothing either way.
    tensorboard: a folder for the curves of loss and accuracy, as TensorBoard reads them.
    report: a page, in one file of HTML, of how the training went. command: that starts the same run again, for it.

    Raises InputError for whatever the caller can mend.
    """
    out = Path(out)
    faster = {} if accelerate is None else {"accelerate": accelerators.create(accelerate)}
    made = recipe_named(recipe, **options or {}, **faster)
    if recipe in _PRETRAINED and weights is None:
        raise expected(f"weights to start {recipe} from", "none", "name a checkpoint with --weights")
    if out.is_dir():
        raise expected("a file to write the checkpoint to", f"the folder {out}", f"name {out / 'network.safetensors'}")
    if transform is None and external is not None:
        raise expected("--transform with --external", "none", "add --transform adversarial, or leave --external out")
    if transform is not None and hold_out is not None:
        remedy = "leave one out: held-out pictures would be judged untransformed"
        raise expected("either --transform or --hold-out", "both", remedy)
    if report is not None:
        from unlearnable import pages, trainer_report  # what is missing for it is missed now
        from unlearnable.audit.run import machine

        if Path(report).is_dir():
            place = Path(report) / "report.html"
            raise expected("a file to write the report to", f"the folder {report}", f"name {place}")
    data, tests = load(source, size=size, limit=limit), load(test, size=size, limit=limit)
    check_alike(data, tests)
    places = None if hold_out is None else held_out(data, hold_out, seed)
    channels, side = data.images.shape[3], data.images.shape[1]
    start = None if weights is None else Path(weights)
    network = partial(build, model, classes=len(data.class_names), channels=channels, size=side, weights=start)
    state = out.with_name(out.name + ".run")
    transformed = None if transform is None else transformation_named(transform, external, data.class_names)
    if transformed is not None:  # what is done to pictures decides a run, too
        state = out.with_name(f"{out.name}.{sha256(json.dumps(transformed.spec()).encode()).hexdigest()[:8]}.run")
    log = _tensorboard_log(tensorboard)

    def tell(done: int, total: int, epoch: Epoch | None) -> None:
        if progress is not None:
            progress(done, total)
        if epoch is not None:
            log("loss/train", epoch.loss, epoch.number)
            log("accuracy/train", epoch.accuracy, epoch.number)
            if epoch.held_out is not None:
                log("accuracy/held-out", epoch.held_out, epoch.number)
            for group in Split._fields if made.accelerate else ():
                log(f"share/{group}", getattr(epoch, group), epoch.number)

    trained = run(
        data,
        model=network,
        recipe=made,
        change=None if transformed is None else compose(transformed).every_batch(len(data.class_names)),
        seed=seed,
        device=device,
        precision=precision,
        held_out=places,
        checkpoint=state,
        progress=tell,
    )
    tested = trained.model if transformed is None else transformed.before(trained.model)
    accuracy = evaluation.evaluate(tested, tests.images, tests.labels, precision=for_testing(precision))
    chosen, judge = best(trained.history), judged_by(made)
    log("accuracy/test", accuracy.share, made.epochs if chosen is None else chosen.number)
    told = {name: str(value) if isinstance(value, Budget) else value for name, value in (options or {}).items()}
    about = {"recipe": recipe, "options": told, "seed": seed, **made.spec(), "data": data.fingerprint()}
    about |= {"history": trained.history, "splits": trained.splits, "hold_out": hold_out}
    of_external = 0 if transformed is None else transformed.steps * len(data) * made.epochs
    about |= {"gradients": trained.gradients, "external_gradients": of_external}
    if transformed is not None:
        about["transform"] = transformed.spec()
    if is_first():
        made_of = Network(
            model=model,
            class_names=data.class_names,
            channels=channels,
            size=side,
            training=about,
            noise=bool(strengths(trained.model)),
        )
        save_network(out, trained.model, made_of)
        state.unlink(missing_ok=True)
    done = TrainReport(
        checkpoint=str(out),
        recipe=recipe,
        accelerate=accelerate,
        model=model,
        epochs=made.epochs,
        clean_accuracy=accuracy.share,
        interval=accuracy.interval(),
        seconds=sum(epoch.seconds for epoch in trained.history),
        gradients=trained.gradients,
        external_gradients=of_external,
        best_epoch=None if chosen is None else chosen.number,
        held_out=None if chosen is None else chosen.held_out,
        judged_by=None if chosen is None or judge is None else f"pgd{judge.steps}, {judge.budget}",
        held_out_pictures=0 if places is None else len(places),
        history=trained.history,
        report=None if report is None else os.fspath(report),
    )
    if report is not None and is_first():
        told_of = trainer_report.About(
            pictures=len(data) - done.held_out_pictures,
            test_pictures=len(tests),
            classes=len(data.class_names),
            size=data.images.shape[1:],
            seed=seed,
            precision=precision,
            parameters=sum(weight.numel() for weight in trained.model.parameters()),
            settings=made.spec() | ({} if transformed is None else {"transform": transformed.spec()}),
            attacked=isinstance(made.objective, Adversarial),
            machine=machine(next(trained.model.parameters()).device),
            command=command,
        )
        pages.publish(trainer_report.page(done, told_of), Path(report))
    return done


def _tensorboard_log(folder: str | os.PathLike[str] | None) -> Callable[[str, float, int], None]:
    """Return what writes a figure, under a name, for an epoch; nothing where there is no folder to write to."""
    if folder is None:
        return lambda *_: None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise expected("the tensorboard package", f"no {error.name}", "pip install tensorboard") from None
    writer = SummaryWriter(os.fspath(folder))

    def write(name: str, value: float, epoch: int) -> None:
        writer.add_scalar(name, value, epoch)
        writer.flush()

    return write


def check_alike(data: Dataset, tests: Dataset) -> None:
    """Raise InputError unless two sets have the same classes and kind of pictures."""
    if data.class_names != tests.class_names:
        other = sorted(set(data.class_names) ^ set(tests.class_names))
        found = f"{len(tests.class_names)} that differ in {', '.join(map(repr, other[:3]))}"
        raise expected(f"test pictures of the same {len(data.class_names)} classes", found, "check the folders' names")
    if data.images.shape[3] != tests.images.shape[3]:
        here, there = ("grey" if one.images.shape[3] == 1 else "colour" for one in (data, tests))
        raise expected(f"{here} test pictures, like those to train on", f"{there} ones", "bring both to one kind")
    if data.images.shape[1:] != tests.images.shape[1:]:
        here, there = ("x".join(map(str, one.images.shape[1:])) for one in (data, tests))
        raise expected(f"test pictures of {here}", there, "bring both to one size with --size")
