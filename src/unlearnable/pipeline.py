"""Pictures in, protected pictures out: protect, verify, unlock, preview."""

import contextlib
import hashlib
import inspect
import io
import itertools
import math
import os
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, get_type_hints

import numpy as np
from numpy.typing import NDArray

import unlearnable
from unlearnable.errors import InputError, expected
from unlearnable.fitting import NoiseFiles, NoiseProgress, again, fitted, made_noise, to_look_at
from unlearnable.keys import Key
from unlearnable.options import check
from unlearnable.pictures import codec
from unlearnable.pictures.colour_difference import colour_difference
from unlearnable.pictures.destination import check_apart, claimed, publish, published, writing
from unlearnable.pictures.folder import Folder
from unlearnable.pictures.manifest import Found, Manifest, Outcome, Picture, speaking
from unlearnable.pictures.samples import Samples, eight_bit
from unlearnable.pictures.source import Containers, class_order, open_published, open_source, payloads
from unlearnable.pictures.store import Block, Container
from unlearnable.protections import protections
from unlearnable.protections.base import ROUNDING, Perturbation, Protection, TraceError
from unlearnable.protections.convolution import Convolution, ReferenceSeed
from unlearnable.protections.stack import Stack
from unlearnable.settling import settled
from unlearnable.workers import Lost, Pool, cores

_SAMPLES: Final = 256  # of each original that the manifest keeps, to measure by how well it comes back
_COLOURS: Final = 32  # pictures at least, if there are as many, that have their colours compared, which takes long
_COLOUR_EVERY: Final = 16  # of how many pictures one has, at least
_FAILURES: Final = 20  # that a report names; the manifest has them all
_COMMIT_SECONDS: Final = 0.5  # of work that kill -9 can lose
_LOSSLESS: Final = 99.0  # dB, of a picture whose samples all came back

Progress = Callable[[int, int], None]
"""Told, now and then, how many pictures are done and how many there are."""


@dataclass(frozen=True)
class ProtectReport:
    """What a run did, and runs into the same destination before it.

    pictures: found; protected, kept (left out by ``fraction``), failed: how many of them; skipped: other files.
    psnr (dB), ssim: medians over the protected pictures, before a lossy format's own loss; None without any.
    colour: the median, over some of them, of the mean CIEDE2000 difference of their pixels.
    lossy: pictures with noise that were stored with loss: they protect less, and do not come back exactly; noise_kept:
    the median share of their noise that the format kept. noise: its file. None for methods without noise.
    failures: some of the failures: id and reason. parameters: what the method was run with; of a stack with a quality
    budget the layers at the strengths that were found.
    """

    pictures: int
    protected: int
    kept: int
    failed: int
    skipped: int
    psnr: float | None
    ssim: float | None
    seconds: float
    manifest: str
    failures: list[tuple[str, str]] = field(default_factory=list)
    lossy: int | None = None
    noise_kept: float | None = None
    noise: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    colour: float | None = None


def protect(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    key: Key | ReferenceSeed,
    method: str = "cuda",
    options: Mapping[str, Any] | None = None,
    classes: str = "folder",
    format: codec.Format = "keep",
    quality: int | None = None,
    workers: int | None = None,
    manifest: str | os.PathLike[str] | None = None,
    noise: str | os.PathLike[str] | None = None,
    fraction: float = 1.0,
    strict: bool = False,
    progress: Progress | None = None,
    noise_progress: NoiseProgress | None = None,
    budget_progress: Progress | None = None,
) -> ProtectReport:
    """Protect the pictures of a source and write them, under the same names, to a destination.

    Started again with the same arguments after an interruption, however rude, it finishes the rest; the result is
    the same, to the last bit, as that of an uninterrupted run, with any number of workers.

    Methods that add noise make it first, and keep it beside the manifest. Pictures that are added to the source
    afterwards get the noise of their class.

    source: a folder of pictures or of parquet, tar or npz files or CIFAR batches, or one such file; only read.
    destination: does not exist, is empty, or holds the beginning of the same run.
    key: the secret; a ReferenceSeed (CUDA only) draws filters as the published code does.
    method, options: a name of ``unlearnable list protections``, and the arguments of its class.
    classes: "folder", "single" or the path of a CSV file of path,label (see :class:`Folder`).
    format: "keep" the pictures' own, or "png", "webp" (both without loss), "jpeg".
    quality: of JPEG, 1 to 100; by default each source's own, but at least 90.
    workers: processes; by default one for each core. With 0 the work is done in this process.
    manifest: its file, outside source and destination; by default the destination's name with ``.manifest`` added.
    noise: the noise file of an earlier run of the same method, to use instead of making it: pictures of that run get
        their own noise, others that of their class.
    fraction: of the pictures that are protected, above 0 and at most 1, as an exact count; the key decides which. The
        others are written in the same way without protection.
    strict: stop at the first picture that cannot be protected. By default it is reported, and the others go on.
    progress: called with pictures done and pictures in all. noise_progress: called while noise is made.
    budget_progress: called while strengths that a quality budget allows are searched for, with pictures measured and,
        at most, to be measured.

    Raises InputError for whatever the caller can mend.
    """
    started = time.monotonic()
    source, destination = Path(source), Path(destination)
    record = Path(manifest) if manifest is not None else default_manifest(destination)
    files = NoiseFiles(record)
    given = None if noise is None else Path(noise)
    check_apart(source, destination, record, *([] if given is None else [given]))
    if not 0 < fraction <= 1:
        raise expected("a fraction above 0 and at most 1", str(fraction), "1 protects every picture")
    if quality is not None and not 1 <= quality <= 100:
        raise expected("a quality from 1 to 100", str(quality), "leave it out to keep each picture's own")
    if workers is not None and workers < 0:
        raise expected("0 workers or more", str(workers), "leave it out to use every core")
    if format != "keep" and format not in codec.SUFFIXES:
        raise expected(f"one of the formats keep, {', '.join(codec.SUFFIXES)}", format, "keep is what most people want")
    protection = _created(method, options or {}, key, given)
    pictures = open_source(source, classes)
    if isinstance(pictures, Containers) and format != "keep":
        raise expected("--format keep for this kind of source", format, "convert a folder of pictures instead")
    if source.is_file() and destination.is_dir():
        raise expected("a file to write", f"the folder {destination}", f"name {destination / source.name}")
    resumed = record.exists()
    if not resumed and (destination.is_file() or (destination.is_dir() and next(published(destination), None))):
        raise expected(
            "a destination that does not exist or is empty",
            f"{destination}, which holds something else",
            "choose another, or name the manifest of the run that made it",
        )
    asked = protection.parameters()
    protection = settled(protection, pictures, key, record, budget_progress)
    about = {
        "version": unlearnable.__version__,
        "key": f"reference seed {key.seed}" if isinstance(key, ReferenceSeed) else key.check_value,
        "method": method,
        **({"asked": asked} if asked != protection.parameters() else {}),  # a budget
        "parameters": protection.parameters(),
        "source": str(source.resolve()),
        "classes": classes,
        "file_format": format,
        "quality": quality,
        "fraction": fraction,
        "files": pictures.names if isinstance(pictures, Containers) else [],
    }
    if given is not None:
        about["noise"] = str(given.resolve())
    with (
        speaking(record),
        claimed(destination, single_file=source.is_file()) as partial,
        Manifest.create(record, about) as book,
    ):
        with book.dropped_on_error() if not resumed else contextlib.nullcontext():
            if resumed:
                _check_ours(destination, book)
            book.add(_found(pictures, format))
            if strict:
                for id_, error in book.failures():
                    raise _not_strict(id_, error)
            if isinstance(pictures, Folder):
                book.reopen(lambda output: _has_content(os.path.join(destination, output)))
            names = class_order(pictures, book.classes())
            if not names:
                raise expected("pictures to protect", f"none in {source}", "check the path")
            perturbation = fitted(
                protection,
                pictures,
                names,
                key,
                classes=classes,
                files=files,
                given=given,
                resumed=resumed,
                progress=noise_progress,
            )
            book.bind(perturbation.digests())
            if fraction < 1:
                chosen = _chosen(book, key, fraction, len(names), protection)
                if not any(chosen):
                    raise expected("a fraction of one picture at least", f"{fraction} of {len(chosen)}", "raise it")
                book.choose(chosen)
            if made_noise(protection) is not None:
                perturbation = files.keep(perturbation)
        colour_every = min(_COLOUR_EVERY, max(1, book.total() // _COLOURS))
        context = _Context(perturbation, format, quality, str(partial), colour_every)
        run = _Protecting(book, context, progress, strict=strict)
        with Pool(_protect_one, run.context, cores() if workers is None else workers) as pool:
            if isinstance(pictures, Folder):
                paths = lambda row: (os.path.join(source, row.id), os.path.join(destination, row.output))  # noqa: E731
                run.files(pool, book.pictures("pending"), paths)
                book.withdraw(lambda output: Path(destination, output).unlink(missing_ok=True))
            else:
                for container in pictures.files:
                    target = destination if source.is_file() else destination / container.name
                    if not target.exists() or book.open_within(container.name):
                        run.container(pool, container, target)
                for name in pictures.companions:
                    publish((source / name).read_bytes(), Path(partial, "companion"), destination / name)
                    book.record_file(name, _file_digest(destination / name))
        counts = book.counts()
        psnr, ssim, colour = book.medians()
        shares = None if not perturbation.adds_noise else _noise_left(book, perturbation)
        failures = list(itertools.islice(book.failures(), _FAILURES))
    if not counts["protected"]:
        found = f"none among {counts['failed']} ({failures[0][0]!r}: {failures[0][1]})" if failures else "none chosen"
        raise expected("pictures that can be protected", found, "check the source")
    if psnr is None:
        found = "only some that it leaves as they are, such as all-black ones"
        raise expected("pictures that the protection changes", found, "check the source")
    return ProtectReport(
        sum(counts.values()),
        counts["protected"],
        counts["kept"],
        counts["failed"],
        pictures.skipped,
        psnr,
        ssim,
        time.monotonic() - started,
        str(record),
        failures,
        None if shares is None else len(shares),
        statistics.median(shares) if shares else None,
        None if made_noise(protection) is None else str(files.noise),
        protection.parameters(),
        colour,
    )


def _created(method: str, options: Mapping[str, Any], key: Key | ReferenceSeed, noise: Path | None) -> Protection:
    """Build a protection. Raises InputError for an option, a kind of key or a file that is for other methods."""
    known = inspect.signature(protections.builder(method)).parameters
    if foreign := [name for name in options if name not in known]:
        remedy = "leave it out, or say another --method"
        if method == "stack":
            remedy = "options of a layer go with its name, as in --layers tone,sem:radius=14:steps=600"
        raise expected(f"options of {method} ({', '.join(known)})", foreign[0], remedy)
    check(options, get_type_hints(protections.builder(method)))
    protection = protections.create(method, **options)
    if isinstance(key, ReferenceSeed) and not isinstance(protection, Convolution):
        raise expected("the method cuda with a reference seed", method, "use a key")
    if noise is not None and made_noise(protection) is None:
        found = method if not isinstance(protection, Stack) else f"{method} without a layer of it"
        remedy = "say --method, or leave --noise out"
        raise expected("a method that makes noise, with a noise file", found, remedy)
    if noise is not None and isinstance(protection, Stack) and protection.budget:
        remedy = "name --layers at their strengths, such as tone:strength=0.3,sem:radius=8, or leave --noise out"
        raise expected("strengths that fit a noise file, as it is", "a quality budget, which changes them", remedy)
    return protection


def _noise_left(book: Manifest, perturbation: Perturbation) -> list[float]:
    """Collect what is left of the noise of each picture that was stored with loss."""
    shares = (perturbation.noise_left(trace) for trace in book.traces())
    return [share for share in shares if share is not None]


def default_manifest(destination: Path) -> Path:
    """Return where the manifest of a destination lies unless it is named: beside it."""
    place = Path(os.path.abspath(destination))
    return place.with_name(place.name + ".manifest")


def _has_content(path: str) -> bool:
    """Tell whether a file is there and holds anything: a power cut can leave one that does not."""
    with contextlib.suppress(OSError):
        return os.stat(path).st_size > 0
    return False


def _check_ours(destination: Path, book: Manifest) -> None:
    """Raise InputError if a destination holds a file that the manifest does not know."""
    files = book.about("files")
    for output in published(destination):
        if output not in files and book.find(output) is None:
            raise expected(
                f"nothing in {destination} but pictures of this run", repr(output), "move it away, or choose another"
            )


def _found(pictures: Folder | Containers, format: codec.Format) -> Iterator[Found]:
    for (id_, label, error), stamp in pictures.scan():
        output = id_ if format == "keep" else os.path.splitext(id_)[0] + codec.SUFFIXES[format]
        yield Found(id_, output, label, stamp, error)


def _chosen(
    book: Manifest, key: Key | ReferenceSeed, fraction: float, classes: int, protection: Protection
) -> Sequence[bool]:
    """Choose the pictures to protect: an exact share in the key's secret order, or as the published code does."""
    if isinstance(key, ReferenceSeed):
        assert isinstance(protection, Convolution)  # noqa: S101 - protect() has seen to that
        draws = protection.reference_generator(classes, key).random_sample(size=book.total())
        return [bool(flag) for flag in draws < fraction]
    ranks = np.array([int.from_bytes(key.rank("mix", id_)[:8], "big") for id_ in book.ids()], np.uint64)
    chosen = np.zeros(len(ranks), bool)
    chosen[np.argsort(ranks, kind="stable")[: round(fraction * len(ranks))]] = True
    return [bool(flag) for flag in chosen]


@dataclass(frozen=True)
class _Job:
    """One picture for a worker: encoded, or its file; and where it goes (nowhere: back to the parent)."""

    row: Picture
    label: int
    source: str | bytes
    target: str | None

    def size(self) -> int:
        if isinstance(self.source, bytes):
            return len(self.source)
        try:
            return os.stat(self.source).st_size
        except OSError:
            return 0

    def read(self) -> bytes:
        """Return the encoded picture. Raises PictureError where there is none to be had."""
        try:
            if isinstance(self.source, bytes):
                return self.source
            with open(self.source, "rb") as file:
                return file.read()
        except OSError as error:
            raise codec.PictureError(f"it cannot be read ({error.strerror})") from None


@dataclass(frozen=True)
class _Answer:
    """What a worker made of a picture, and the new picture if that goes back to the parent.

    altered: whether what it was given is not what was published (to be unlocked).
    """

    outcome: Outcome
    data: bytes | None = None
    altered: bool = False


@dataclass(frozen=True)
class _Context:
    """What all pictures of a run have in common. colour_every: one picture in so many has its colours compared."""

    perturbation: Perturbation
    format: codec.Format
    quality: int | None
    partial: str
    colour_every: int = 1


def _protect_one(context: _Context, job: _Job) -> _Answer:
    """Protect one picture: what the workers do."""

    def change(picture: codec.Picture) -> tuple[Samples, Outcome]:
        if not job.row.chosen:
            return picture.pixels, Outcome("kept")
        out, traces = context.perturbation.apply_traced(picture.pixels[None], np.array([job.label]), [job.row.id])
        return out[0], _measured(job.row.number, context.colour_every, picture.pixels, out[0], traces.item())

    return _change(context, job, change)


def _unlock_one(context: _Context, job: _Job) -> _Answer:
    """Take the protection off one picture."""

    def change(picture: codec.Picture) -> tuple[Samples, Outcome]:
        if job.row.status != "protected":
            return picture.pixels, Outcome("kept")
        stored = picture.pixels[None], np.array([job.label]), [job.row.id], np.array([job.row.trace], object)
        out = context.perturbation.restore(*stored, noise=math.hypot(ROUNDING, picture.noise))
        return out[0], Outcome("protected", psnr=_sampled_psnr(out[0], job.row.sample))

    try:
        data = job.read()
    except codec.PictureError as error:
        return _Answer(Outcome("failed", error=str(error)))
    answer = _change(context, replace(job, source=data), change)
    return replace(answer, altered=hashlib.sha256(data).hexdigest() != job.row.sha256)


def _change(context: _Context, job: _Job, change: Callable[[codec.Picture], tuple[Samples, Outcome]]) -> _Answer:
    try:
        picture = codec.decode(job.read())
        pixels, outcome = change(picture)
        data = codec.encode(picture, pixels, context.format, context.quality)
        if (
            context.perturbation.adds_noise
            and outcome.trace is not None
            and not codec.keeps_all(picture, pixels, context.format)
        ):
            all_three = picture.pixels, pixels, *codec.stored(picture, pixels, data, context.format, context.quality)
            trace = context.perturbation.traced_in_loss(outcome.trace, *all_three, job.label, job.row.id)
            outcome = replace(outcome, trace=trace)
    except (codec.PictureError, TraceError) as error:
        return _Answer(Outcome("failed", error=str(error)))
    except MemoryError:
        return _Answer(Outcome("failed", error="too large for the memory there is"))
    outcome = replace(outcome, sha256=hashlib.sha256(data).hexdigest())
    if job.target is None:
        return _Answer(outcome, data)
    publish(data, os.path.join(context.partial, str(job.row.number)), job.target)
    return _Answer(outcome)


def _measured(
    number: int, colour_every: int, original: Samples, protected: Samples, trace: float | bytes | None
) -> Outcome:
    from unlearnable.pictures import quality  # brings a compiler along, which only those need who change pictures

    psnr = quality.psnr(original, protected)
    return Outcome(
        "protected",
        trace=trace,
        psnr=psnr if math.isfinite(psnr) else None,
        ssim=quality.ssim(original, protected),
        sample=_sample(original).tobytes() + _shape(original),
        colour=colour_difference(original, protected) if number % colour_every == 0 else None,
    )


def _sample(pixels: Samples) -> Samples:
    """Take samples spread evenly over a picture, at the same places in every picture of its size."""
    return pixels.reshape(-1)[_places(pixels.size)]


def _shape(pixels: Samples) -> bytes:
    return np.array(pixels.shape, "<u4").tobytes()


@lru_cache(256)
def _places(size: int) -> NDArray[np.int64]:
    golden = (math.sqrt(5) - 1) / 2
    return (np.arange(1, _SAMPLES + 1) * golden % 1 * size).astype(np.int64)


def _sampled_psnr(pixels: Samples, sample: bytes | None) -> float | None:
    from unlearnable.pictures import quality

    found, kept = _sample(pixels), sample or b""
    original, shape = kept[: found.nbytes], kept[found.nbytes :]
    if len(original) < found.nbytes or shape not in (b"", _shape(pixels)):  # the shape is not in older manifests
        return None
    psnr = quality.psnr(found, np.frombuffer(original, pixels.dtype))
    return psnr if math.isfinite(psnr) else _LOSSLESS


class _Run(ABC):
    """Drives pictures through the workers, from one place to another, and takes down what becomes of them."""

    def __init__(self, book: Manifest, context: _Context, progress: Progress | None) -> None:
        self.book, self.context = book, context
        self._labels = {name: label for label, name in enumerate(context.perturbation.class_names)}
        self._progress = progress
        counts = book.counts()
        self._all, self._done = sum(counts.values()), sum(counts.values()) - counts["pending"]
        self._last = time.monotonic()

    @abstractmethod
    def note(self, row: Picture, answer: _Answer) -> None:
        """Take down what became of a picture."""

    @abstractmethod
    def write_down(self) -> None:
        """Make lasting what has been noted."""

    def close(self, container: str, partial: Path) -> None:
        """Make lasting what has been noted of a container, which is whole now."""
        self.write_down()

    @abstractmethod
    def change_array(self, images: Samples, labels: NDArray[np.int64], rows: Sequence[Picture]) -> Samples:
        """Change an array of pictures, and note what became of each."""

    def files(
        self, pool: Pool[_Job, _Answer], rows: Iterable[Picture], paths: Callable[[Picture], tuple[str, str]]
    ) -> None:
        """Change pictures that are files of their own, from and to the paths given for each."""
        try:
            for job, answer in pool.map((self._job(row, *paths(row)) for row in rows), _Job.size):
                self._take(job, answer)
        finally:
            self.write_down()

    def container(self, pool: Pool[_Job, _Answer], container: Container, target: Path) -> None:
        """Change the pictures of a container."""

        def transform(block: Block) -> Block:
            rows = self.book.look_up(block.ids)
            if isinstance(block.payloads, np.ndarray):
                if len(rows) != len(block.ids):
                    found = f"none for {next(id_ for id_ in block.ids if id_ not in rows)!r}"
                    raise expected("a class for every picture of an array", found, "name them all")
                labels = np.array([self._labels[row.label] for row in rows.values()])
                return replace(block, payloads=self.change_array(block.payloads, labels, list(rows.values())))
            payloads = {id_: data for id_, data in zip(block.ids, block.payloads, strict=True) if data is not None}
            jobs = [self._job(row, payloads[id_]) for id_, row in rows.items() if id_ in payloads]
            new = {job.row.id: self._take(job, answer) for job, answer in pool.map(jobs, _Job.size)}
            return replace(block, payloads=[new.get(id_) for id_ in block.ids])

        partial = Path(self.context.partial, "container")
        with writing(target), self.book.transaction():
            container.rewrite(partial, transform)
            self.close(container.name, partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(target)

    def _job(self, row: Picture, source: str | bytes, target: str | None = None) -> _Job:
        return _Job(row, self._labels[row.label], source, target)

    def _take(self, job: _Job, answer: _Answer | Lost) -> bytes | None:
        if isinstance(answer, Lost):
            answer = _Answer(Outcome("failed", error=str(answer)))
        self.note(job.row, answer)
        return answer.data

    def tick(self) -> None:
        """Count a picture as done; now and then write down and tell how far it is."""
        self._done += 1
        now = time.monotonic()
        if now - self._last > _COMMIT_SECONDS:
            self._last = now
            self.write_down()
            if self._progress:
                self._progress(self._done, self._all)


def _not_strict(id_: str, error: str) -> InputError:
    remedy = "mend it, or leave --strict out"
    return expected("pictures that can all be protected (--strict)", f"{id_!r}: {error}", remedy)


class _Protecting(_Run):
    """Protects pictures and keeps the journal."""

    def __init__(self, *arguments: Any, strict: bool) -> None:
        super().__init__(*arguments)
        self._strict = strict
        self._noted: list[tuple[int, Outcome]] = []

    def note(self, row: Picture, answer: _Answer) -> None:
        outcome = answer.outcome
        self._noted.append((row.number, outcome))
        if outcome.status == "failed" and self._strict:
            raise _not_strict(row.id, str(outcome.error))
        self.tick()

    def write_down(self) -> None:
        with self.book.transaction():
            self.book.record(self._noted)
        self._noted = []

    def close(self, container: str, partial: Path) -> None:
        super().close(container, partial)
        self.book.record_file(container, _file_digest(partial))

    def change_array(self, images: Samples, labels: NDArray[np.int64], rows: Sequence[Picture]) -> Samples:
        chosen = np.array([row.chosen for row in rows], bool)
        ids = [row.id for row in rows if row.chosen]
        out, traces = images.copy(), np.zeros(len(rows), object)
        out[chosen], traces[chosen] = self.context.perturbation.apply_traced(images[chosen], labels[chosen], ids)
        for n, row in enumerate(rows):
            every = self.context.colour_every
            outcome = _measured(row.number, every, images[n], out[n], traces[n]) if row.chosen else Outcome("kept")
            self.note(row, _Answer(replace(outcome, sha256=hashlib.sha256(out[n]).hexdigest())))
        return out


class _Unlocking(_Run):
    """Takes the protection off pictures and measures how well they come back."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        counts = self.book.counts()
        self._all, self._done = counts["protected"] + counts["kept"], 0
        self.unlocked = 0
        self.psnr: dict[str, float] = {}
        self.changed: list[str] = []
        self.failures: list[tuple[str, str]] = []

    def skip(self, container: str) -> None:
        """Count the pictures of a container that is there already as done."""
        self._done += sum(1 for _ in self.book.within(container))

    def left(self, rows: Iterable[Picture], out: Path) -> Iterator[Picture]:
        """Go through the pictures that are not there yet; the others count as done."""
        for row in rows:
            if (out / row.output).exists():
                self._done += 1
            else:
                yield row

    def note(self, row: Picture, answer: _Answer) -> None:
        if answer.outcome.status == "failed":
            self.failures.append((row.id, str(answer.outcome.error)))
        else:
            self.unlocked += 1
            if answer.altered:
                self.changed.append(row.id)
        if answer.outcome.psnr is not None:
            self.psnr[row.id] = answer.outcome.psnr
        self.tick()

    def write_down(self) -> None:
        pass

    def change_array(self, images: Samples, labels: NDArray[np.int64], rows: Sequence[Picture]) -> Samples:
        out = images.copy()
        locked = np.array([row.status == "protected" for row in rows], bool)
        ids = [row.id for row in rows if row.status == "protected"]
        traces = np.array([row.trace for row in rows], object)
        restore, failed = self.context.perturbation.restore, dict[int, str]()
        try:
            out[locked] = restore(images[locked], labels[locked], ids, traces[locked])
        except TraceError:  # one at a time, so that no others are lost
            for n in np.flatnonzero(locked).tolist():
                one = slice(n, n + 1)
                try:
                    out[one] = restore(images[one], labels[one], [rows[n].id], traces[one])
                except TraceError as error:
                    failed[n] = str(error)
        for n, row in enumerate(rows):
            if n in failed:
                self.note(row, _Answer(Outcome("failed", error=failed[n])))
                continue
            psnr = _sampled_psnr(out[n], row.sample) if locked[n] else None
            altered = hashlib.sha256(images[n]).hexdigest() != row.sha256
            self.note(row, _Answer(Outcome("protected", psnr=psnr), altered=altered))
        return out


@dataclass(frozen=True)
class VerifyReport:
    """How a destination compares with its manifest. changed, missing, extra: ids.

    unfinished: pictures that the run has not come to yet; they count as missing. failed: pictures that could not be
    protected, and are not there. key: whether it is the right one; None if none was given.
    """

    ok: bool
    changed: list[str]
    missing: list[str]
    extra: list[str]
    unfinished: int
    failed: int
    key: bool | None


def verify(
    destination: str | os.PathLike[str],
    *,
    manifest: str | os.PathLike[str] | None = None,
    key: Key | ReferenceSeed | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Compare every published picture with the manifest, byte by byte. Raises InputError where there is none."""
    destination = Path(destination)
    record = Path(manifest) if manifest is not None else default_manifest(destination)
    found = _Differences()
    with speaking(record), Manifest.open(record) as book:
        counts = book.counts()
        right = None if key is None else book.about("key") == _check_value(key)
        compared = _compare_containers if book.about("files") else _compare_files
        for done, _ in enumerate(compared(destination, book, found), 1):
            if progress and done % 500 == 0:
                progress(done, sum(counts.values()))
    ok = not (found.changed or found.missing or found.extra) and right is not False
    return VerifyReport(ok, found.changed, found.missing, found.extra, counts["pending"], counts["failed"], right)


@dataclass
class _Differences:
    """Ids of pictures, and names of files, that are not as the manifest has them."""

    changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)


def _check_value(key: Key | ReferenceSeed) -> str:
    return f"reference seed {key.seed}" if isinstance(key, ReferenceSeed) else key.check_value


def _compare_files(destination: Path, book: Manifest, found: _Differences) -> Iterator[None]:
    """Compare pictures that are files of their own with the manifest; yields once for each."""
    for row in book.pictures():
        if row.status != "failed":
            try:
                if _file_digest(destination / row.output) != row.sha256:
                    found.changed.append(row.id)
            except FileNotFoundError:
                found.missing.append(row.id)
            except OSError:
                found.changed.append(row.id)
        yield
    for output in published(destination):
        known = book.find(output)
        if known is None or known.status == "failed":
            found.extra.append(output)


def _compare_containers(destination: Path, book: Manifest, found: _Differences) -> Iterator[None]:
    """Compare containers with the manifest: as files; and where one has changed, picture by picture."""
    names, digests = book.about("files"), book.file_digests()
    for name in names:
        path = _place(destination, name)
        container = open_published(path, name, book.about("classes"))
        if not path.exists():
            found.missing += [name] if container is None else [row.id for row in book.within(name)]
        elif not path.is_file() or _file_digest(path) != digests.get(name):
            before = len(found.changed) + len(found.missing) + len(found.extra)
            try:
                if container is not None and path.is_file():
                    yield from _compare_pictures(container, book, found)
            except (InputError, OSError):  # no container any more
                found.changed.append(name)
            if before == len(found.changed) + len(found.missing) + len(found.extra):
                found.changed.append(name)
        yield
    if destination.is_dir():
        found.extra += [output for output in published(destination) if output not in names]


def _compare_pictures(container: Container, book: Manifest, found: _Differences) -> Iterator[None]:
    present: set[str] = set()
    labelled = book.about("classes") == "folder"
    for block in container.read():
        for id_, label, payload in zip(block.ids, block.labels, block.payloads, strict=True):
            row = book.find(id_)
            if row is None or (row.status == "failed" and payload is not None):
                found.extra.append(id_)
            elif payload is not None:
                present.add(id_)
                if hashlib.sha256(payload).hexdigest() != row.sha256 or (labelled and label != row.label):
                    found.changed.append(id_)
            yield
    found.missing += [row.id for row in book.within(container.name) if row.id not in present]


def _place(destination: Path, name: str) -> Path:
    """Return where a container of a destination lies; the destination itself may be the only one."""
    return destination / name if destination.is_dir() else destination


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class UnlockReport:
    """What was given back.

    pictures: gone through this time, without those that were there already.
    psnr: the median over the pictures, in dB; pictures_psnr: of each, by id. Measured on the samples of each original
        that the manifest keeps, before a lossy format's own loss; 99 dB stands for samples that all came back exactly.
    changed: ids of pictures that are not, to the byte, what was published. They were unlocked all the same, as well
        as that goes.
    """

    pictures: int
    unlocked: int
    failed: int
    psnr: float | None
    seconds: float
    pictures_psnr: dict[str, float]
    changed: list[str]
    failures: list[tuple[str, str]]


def unlock(
    destination: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    key: Key | ReferenceSeed,
    manifest: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> UnlockReport:
    """Take the protection off published pictures, with the key and the manifest.

    Started again after an interruption it finishes the rest. Pictures that ``fraction`` left out come through as
    they are.

    Raises InputError for a wrong key, and for whatever else the caller can mend.
    """
    started = time.monotonic()
    destination, out = Path(destination), Path(out)
    record = Path(manifest) if manifest is not None else default_manifest(destination)
    check_apart(destination, out, record)
    if not destination.exists():
        raise expected("protected pictures", f"nothing at {destination}", "check the path")
    with (
        speaking(record),
        Manifest.open(record) as book,
        claimed(out, single_file=destination.is_file()) as partial,
    ):
        if book.about("key") != _check_value(key):
            raise expected(f"the key that {record} was made with", "another", "name the right key file")
        files = book.about("files")
        for output in published(out):
            if output not in files and book.find(output) is None:
                raise expected(f"nothing in {out} but pictures unlocked before", repr(output), "choose another folder")
        protection = protections.create(book.about("method"), **book.about("parameters"))
        perturbation = again(protection, book.labels(), key, NoiseFiles(record))
        book.bind(perturbation.digests())
        run = _Unlocking(book, _Context(perturbation, "keep", None, str(partial)), progress)
        with Pool(_unlock_one, run.context, cores() if workers is None else workers) as pool:
            for name in files:
                path, target = _place(destination, name), out if destination.is_file() else out / name
                container = open_published(path, name, book.about("classes"))
                if not path.is_file():
                    run.failures.append((name, "it is not there"))
                elif target.exists():
                    run.skip(name)
                elif container is None:
                    publish(path.read_bytes(), Path(partial, "companion"), target)
                else:
                    run.container(pool, container, target)
            if not files:
                rows = run.left(book.pictures("protected", "kept"), out)
                run.files(pool, rows, lambda row: (str(destination / row.output), str(out / row.output)))
    return UnlockReport(
        run.unlocked + len(run.failures),
        run.unlocked,
        len(run.failures),
        statistics.median(run.psnr.values()) if run.psnr else None,
        time.monotonic() - started,
        run.psnr,
        run.changed,
        run.failures,
    )


def preview(
    source: str | os.PathLike[str],
    *,
    key: Key | ReferenceSeed,
    out: str | os.PathLike[str],
    method: str = "cuda",
    options: Mapping[str, Any] | None = None,
    classes: str = "folder",
    noise: str | os.PathLike[str] | None = None,
    budget_progress: Progress | None = None,
) -> Path:
    """Draw a contact sheet: of one picture a class the original, the protected one and their difference.

    Takes the first picture of each class that can be read. The layers of a stack are written on the sheet, at the
    strengths that a quality budget allows. Where the method adds noise and no ``noise`` file is named, it is made in a
    few steps for a few pictures, which shows how it looks.

    Raises InputError where there is no picture.
    """
    from unlearnable.pictures import quality
    from unlearnable.pictures.sheet import Row, contact_sheet

    source, out = Path(source), Path(os.path.abspath(out))
    given = None if noise is None else Path(noise)
    protection = _created(method, options or {}, key, given)
    pictures = open_source(source, classes)
    check_apart(source, out)
    if out.exists() and not (out.is_file() and out.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"):
        raise expected("a new file, or an earlier sheet", f"something else at {out}", "name another with --out")
    names = class_order(pictures, {entry.label for entry, _ in pictures.scan() if entry.error is None})
    if not names:
        raise expected("pictures to protect", f"none in {source}", "check the path")
    protection = settled(protection, pictures, key, progress=budget_progress)
    perturbation = to_look_at(protection, pictures, names, key, classes=classes, given=given)
    rows: dict[str, Row] = {}
    for id_, label, pixels in _readable(pictures, rows):
        protected = perturbation.apply(pixels[None], np.array([perturbation.class_names.index(label)]), [id_])[0]
        psnr, ssim = quality.psnr(pixels, protected), quality.ssim(pixels, protected)
        rows[label] = Row(label, eight_bit(pixels), eight_bit(protected), psnr, ssim)
    if not rows:
        raise expected("pictures that can be read", f"none in {source}", "check the files")
    sheet = io.BytesIO()
    drawn = [rows[name] for name in names if name in rows]
    layers = protection.parameters()["layers"] if isinstance(protection, Stack) else ""
    contact_sheet(drawn, title=f"{method}: {source.name}", subtitle=str(layers)).save(sheet, "PNG")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    publish(sheet.getvalue(), out.with_name(out.name + ".partial"), out)
    return out


def _readable(pictures: Folder | Containers, done: Collection[str]) -> Iterator[tuple[str, str, Samples]]:
    """Go through the pictures of classes that are not done yet, decoded; those that cannot be read are left out."""
    wanted = (entry for entry, _ in pictures.scan() if entry.error is None and entry.label not in done)
    for entry, payload in payloads(pictures, wanted):
        with contextlib.suppress(codec.PictureError, OSError):
            if isinstance(payload, str):
                payload = Path(payload).read_bytes()
            if payload is not None:
                yield entry.id, entry.label, codec.decode(payload).pixels if isinstance(payload, bytes) else payload
