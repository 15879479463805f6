"""``unlearnable protect``."""

from pathlib import Path
from typing import Annotated, Final

import typer

from unlearnable.cli.common import (
    Blur,
    Canvas,
    Classes,
    Grid,
    Json,
    KernelSize,
    KeyFile,
    Layers,
    ManifestFile,
    MaxCiede2000,
    Method,
    MinPsnr,
    MinSsim,
    NoiseFile,
    NoiseSeed,
    Per,
    Preset,
    Radius,
    Seed,
    Steps,
    Strength,
    Surrogate,
    Workers,
    options,
    print_json,
    secret,
    telling,
    telling_noise,
)

_AS_GOOD_AS_ALL: Final = 0.95  # share of noise that a lossy format may leave without a word
_HARDLY_CHANGED: Final = 50  # dB: four fifths of a grey level, where one is the least that any layer is meant to add


def protect(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Pictures: a folder, or a parquet, tar or npz file.")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="Where the protected pictures go.")],
    key: KeyFile = None,
    reference_seed: Seed = None,
    method: Method = "cuda",
    classes: Classes = "folder",
    file_format: Annotated[
        str, typer.Option("--format", metavar="F", help="keep, png, webp or jpeg. keep: as each picture is.")
    ] = "keep",
    quality: Annotated[
        int | None,
        typer.Option("--quality", metavar="Q", help="Of JPEG. [default: the picture's own, at least 90]"),
    ] = None,
    kernel_size: KernelSize = None,
    blur: Blur = None,
    preset: Preset = None,
    model: Surrogate = None,
    steps: Steps = None,
    seed: NoiseSeed = None,
    radius: Radius = None,
    per: Per = None,
    size: Canvas = None,
    layers: Layers = None,
    min_ssim: MinSsim = None,
    min_psnr: MinPsnr = None,
    max_ciede2000: MaxCiede2000 = None,
    strength: Strength = None,
    grid: Grid = None,
    noise: NoiseFile = None,
    fraction: Annotated[
        float, typer.Option("--fraction", metavar="F", help="Share of the pictures to protect; the key chooses.")
    ] = 1.0,
    workers: Workers = None,
    manifest: ManifestFile = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first picture that cannot be protected.")
    ] = False,
    json: Json = False,
) -> None:
    """Protect pictures.

    Names, sizes and metadata stay. Interrupted, the same command finishes the rest.
    """
    from unlearnable.pipeline import protect
    from unlearnable.protections.quality_budget import LIMITS

    secrets = secret(key, reference_seed)
    given = options(
        kernel_size=kernel_size,
        blur=blur,
        preset=preset,
        model=model,
        steps=steps,
        seed=seed,
        radius=radius,
        per=per,
        size=size,
        layers=layers,
        min_ssim=min_ssim,
        min_psnr=min_psnr,
        max_ciede2000=max_ciede2000,
        strength=strength,
        grid=grid,
    )
    with (
        telling("searching strengths") as budget_progress,
        telling_noise() as noise_progress,
        telling("protecting") as progress,
    ):
        report = protect(
            source,
            destination,
            key=secrets,
            method=method,
            options=given,
            classes=classes,
            format=file_format,  # type: ignore[arg-type]  # checked there
            quality=quality,
            workers=workers,
            manifest=manifest,
            noise=noise,
            fraction=fraction,
            strict=strict,
            progress=progress,
            noise_progress=noise_progress,
            budget_progress=budget_progress,
        )
    for name, reason in report.failures:
        typer.echo(f"failed: {name!r}: {reason}", err=True)
    if report.failed > len(report.failures):
        typer.echo(f"failed: {report.failed - len(report.failures)} more; the manifest names them", err=True)
    reached = {"min_ssim": report.ssim, "min_psnr": report.psnr, "max_ciede2000": report.colour}
    budget = {name: bound for name, bound in given.items() if name in reached}
    for name, bound in budget.items():
        value = reached[name]
        if value is not None and not LIMITS[name].allows(value, bound):
            typer.echo(
                f"warning: a sample of the pictures promised a median {LIMITS[name].name} of {bound:g}, and it is"
                f" {LIMITS[name].written(value)}: with --fraction, with pictures that came later or with noise that is"
                " made from the pictures, it can be another",
                err=True,
            )
    if report.psnr is not None and report.psnr > _HARDLY_CHANGED:
        typer.echo(
            f"warning: pictures change by less than a grey level (median PSNR {report.psnr:.1f} dB), which protects"
            " nothing: raise the strength, or choose a --size that is no more than theirs",
            err=True,
        )
    if report.lossy and report.noise_kept is not None and report.noise_kept < _AS_GOOD_AS_ALL:
        same_noise = "" if report.noise is None else f" --noise {report.noise}"
        typer.echo(
            f"warning: {100 * report.noise_kept:.0f} % of the noise is left in {report.lossy:,} pictures stored as JPEG"
            " or the like (less noise protects less, and none comes off exactly);"
            f" --format png{same_noise} keeps all of it, in another destination",
            err=True,
        )
    if json:
        print_json(report)
        return
    kept, failed = (
        f", {report.kept} kept as they are" * bool(report.kept),
        f", {report.failed} FAILED" * bool(report.failed),
    )
    typer.echo(
        f"Protected {report.protected:,} of {report.pictures:,} pictures in {report.seconds:.1f} s{kept}{failed};"
        f" {report.skipped:,} other files left alone."
    )
    colour = "" if report.colour is None else f", CIEDE2000 {report.colour:.1f}"
    typer.echo(f"Median quality: PSNR {report.psnr:.1f} dB, SSIM {report.ssim:.3f}{colour}.")
    if budget:
        typer.echo(f"Layers: {report.parameters['layers']}.")
    files = " and ".join(filter(None, (report.manifest, report.noise)))
    typer.echo(f"Publish {destination}. Keep the key and {files} to yourself.")
