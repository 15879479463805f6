"""The contact sheet: original, protected and difference side by side, for people to judge with their own eyes."""

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from unlearnable.pictures.samples import coloured

MAX_ROWS: Final = 30
"""Rows drawn, the first ones if there are more."""

_CELL: Final = 256  # pixels: 32, 64 and 128 go into it, and 224 fits as it is
_GAP, _MARGIN, _CAPTION, _SPACE = 8, 48, 38, 18
_CARD: Final = 3 * _CELL + 2 * _GAP
_TITLE, _LABEL, _TEXT = 34, 20, 16  # font sizes
_LINE: Final = 20  # from one line of text to the next
_PAGE, _PANEL, _INK, _FAINT = "#ffffff", "#f3f3f1", "#1b1b1f", "#6f6f77"
_GREY: Final = 128


@dataclass(frozen=True)
class Row:
    """One picture before and after.

    original, protected: of one shape, (height, width, 1, 3 or 4), uint8; four channels are inverted CMYK.
    psnr: in dB; infinite if nothing changed.
    """

    label: str
    original: NDArray[np.uint8]
    protected: NDArray[np.uint8]
    psnr: float
    ssim: float


def contact_sheet(rows: Sequence[Row], *, title: str, subtitle: str = "") -> Image.Image:
    """Draw a sheet, one row of three a picture.

    Differences are drawn around mid grey, all of them amplified by the one factor printed above. Small pictures are
    enlarged a whole number of times, so that a pixel stays a pixel; large ones are scaled down. A subtitle takes the
    lines it needs, broken behind commas and colons, as layers are described with.
    """
    shown = rows[:MAX_ROWS]
    pairs = [(_fitted(row.original), _fitted(row.protected)) for row in shown]
    factor = _amplification(pairs)
    columns = 1 if len(shown) <= 4 else 2 if len(shown) <= 12 else 3
    pitch = _CAPTION + _CELL + _SPACE
    width = _MARGIN + columns * (_CARD + _MARGIN)
    about = _lines(_plain(subtitle), _TEXT, width - 2 * _MARGIN)
    top = _MARGIN + _TITLE + 2 * _CAPTION + (len(about) - 1) * _LINE
    sheet = Image.new("RGB", (width, top + math.ceil(len(shown) / columns) * pitch - _SPACE + _MARGIN), _PAGE)
    draw = ImageDraw.Draw(sheet)

    note = f"the first {len(shown)} of {len(rows)}" if len(shown) < len(rows) else ""
    taken = _write(draw, (width - _MARGIN, _MARGIN + _TITLE - _TEXT), note, _TEXT, _FAINT, width, right=True)
    _write(draw, (_MARGIN, _MARGIN), _plain(title), _TITLE, _INK, width - 2 * _MARGIN - taken - _GAP)
    for place, text in enumerate(about):
        _write(draw, (_MARGIN, _MARGIN + _TITLE + _GAP + place * _LINE), text, _TEXT, _FAINT, width - 2 * _MARGIN)
    for column in range(columns):
        for place, heading in enumerate(("original", "protected", f"difference · x{factor}")):
            x = _MARGIN + column * (_CARD + _MARGIN) + place * (_CELL + _GAP)
            _write(draw, (x, top - _CAPTION), heading, _TEXT, _FAINT, _CELL)

    for number, (row, (original, protected)) in enumerate(zip(shown, pairs, strict=True)):
        line, column = divmod(number, columns)
        x, y = _MARGIN + column * (_CARD + _MARGIN), top + line * pitch
        figures = "unchanged" if math.isinf(row.psnr) else f"PSNR {row.psnr:.1f} dB · SSIM {row.ssim:.3f}"
        taken = _write(draw, (x + _CARD, y + _LABEL - _TEXT), figures, _TEXT, _FAINT, _CARD, right=True)
        _write(draw, (x, y), _plain(row.label), _LABEL, _INK, _CARD - taken - 2 * _GAP)
        difference = _GREY + factor * (protected.astype(np.int16) - original)
        for place, picture in enumerate((original, protected, difference.clip(0, 255).astype(np.uint8))):
            left, upper = x + place * (_CELL + _GAP), y + _CAPTION - _GAP
            draw.rectangle((left, upper, left + _CELL - 1, upper + _CELL - 1), fill=_PANEL)
            tall, wide = picture.shape[:2]
            sheet.paste(Image.fromarray(picture), (left + (_CELL - wide) // 2, upper + (_CELL - tall) // 2))
    return sheet


def _fitted(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bring a picture to RGB, and as near to the size of a cell as it gets."""
    image = Image.fromarray(np.broadcast_to(coloured(pixels), (*pixels.shape[:2], 3)).copy())
    times = _CELL // max(image.size)
    if times:
        return np.asarray(image).repeat(times, 0).repeat(times, 1)
    image.thumbnail((_CELL, _CELL), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _amplification(pairs: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> int:
    """Choose the factor, at most 16, that spreads all differences but the highest hundredth over the greys."""
    highest = max((float(np.percentile(np.abs(b.astype(np.int16) - a), 99)) for a, b in pairs), default=0)
    return int(np.clip((_GREY - 1) // max(highest, 1), 1, 16))


def _plain(name: str) -> str:
    """Reduce a name, which may hold anything, to one line in the letters that Pillow's own font has."""
    letters = (letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    return " ".join("".join(letters).encode("ascii", "replace").decode().split())


def _lines(text: str, size: int, room: int) -> list[str]:
    """Break a text behind commas and colons into lines that have room, where it can be done; one at least."""
    font = ImageFont.load_default(size)
    lines = [""]
    for part in re.findall(r"[^,:]*[,:]|[^,:]+", text):
        if lines[-1] and font.getlength(lines[-1] + part) > room:
            lines.append("")
        lines[-1] += part
    return lines


def _write(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: str, room: int, *, right: bool = False
) -> int:
    """Write one line, cut to the room there is, and return its width; ``at`` is its upper left or right corner."""
    font = ImageFont.load_default(size)
    line = text
    while line and font.getlength(line) > room:
        text = text[:-1]
        line = f"{text.rstrip()}…" if text else ""
    draw.text(at, line, colour, font, anchor="ra" if right else "la")
    return math.ceil(font.getlength(line))
