"""``unlearnable preview``."""

from pathlib import Path
from typing import Annotated

import typer

from unlearnable.cli.common import (
    Blur,
    Canvas,
    Classes,
    Grid,
    KernelSize,
    KeyFile,
    Layers,
    MaxCiede2000,
    Method,
    MinPsnr,
    MinSsim,
    NoiseFile,
    Preset,
    Radius,
    Seed,
    Strength,
    Surrogate,
    options,
    secret,
    telling,
)


def preview(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="The pictures.")],
    out: Annotated[Path, typer.Option("--out", metavar="SHEET.png", help="The contact sheet to draw.")],
    key: KeyFile = None,
    reference_seed: Seed = None,
    method: Method = "cuda",
    classes: Classes = "folder",
    kernel_size: KernelSize = None,
    blur: Blur = None,
    preset: Preset = None,
    model: Surrogate = None,
    radius: Radius = None,
    size: Canvas = None,
    layers: Layers = None,
    min_ssim: MinSsim = None,
    min_psnr: MinPsnr = None,
    max_ciede2000: MaxCiede2000 = None,
    strength: Strength = None,
    grid: Grid = None,
    noise: NoiseFile = None,
) -> None:
    """Draw a contact sheet.

    One picture a class: before, after and their difference.
    """
    from unlearnable.pipeline import preview

    given = options(
        kernel_size=kernel_size,
        blur=blur,
        preset=preset,
        model=model,
        radius=radius,
        size=size,
        layers=layers,
        min_ssim=min_ssim,
        min_psnr=min_psnr,
        max_ciede2000=max_ciede2000,
        strength=strength,
        grid=grid,
    )
    secrets = secret(key, reference_seed)
    with telling("searching strengths") as progress:
        preview(
            source,
            key=secrets,
            out=out,
            method=method,
            options=given,
            classes=classes,
            noise=noise,
            budget_progress=progress,
        )
    typer.echo(f"Wrote {out}.")
