import math

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from unlearnable.pictures.sheet import MAX_ROWS, Row, contact_sheet

RED = (255, 0, 0)


def noise(height: int = 32, width: int = 32, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 200, (height, width, channels), dtype=np.uint8)


def framed(size: int = 32) -> NDArray[np.uint8]:
    picture = noise(size, size)
    picture[[0, -1]] = picture[:, [0, -1]] = RED
    return picture


def row(picture: NDArray[np.uint8], change: int = 10, label: str = "a class") -> Row:
    return Row(label, picture, picture + np.uint8(change), psnr=28.1, ssim=0.9)


def part_in_frame(sheet: Image.Image, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    pixels = np.asarray(sheet)
    rows, columns = np.nonzero((pixels == colour).all(-1))
    return pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


@pytest.mark.parametrize(("size", "times"), [(32, 8), (28, 9), (224, 1), (256, 1)])
def test_small_pictures_keep_their_pixels(size: int, times: int) -> None:
    picture = framed(size)
    sheet = contact_sheet([Row("", picture, picture // 2, 10.0, 0.5)], title="")
    assert np.array_equal(part_in_frame(sheet, RED), picture.repeat(times, 0).repeat(times, 1))


def test_large_pictures_are_fitted() -> None:
    picture = np.empty((600, 1000, 3), np.uint8)
    picture[:] = RED
    sheet = contact_sheet([Row("", picture, picture // 2, 10.0, 0.5)], title="")
    assert part_in_frame(sheet, RED).shape == (154, 256, 3)


@pytest.mark.parametrize(("change", "factor"), [(1, 16), (10, 12), (50, 2), (55, 2)])
def test_differences_are_amplified_around_grey(change: int, factor: int) -> None:
    sheet = contact_sheet([row(noise(), change)], title="")
    assert (np.asarray(sheet) == 128 + factor * change).all(-1).sum() >= 256 * 256


def test_an_unchanged_picture_has_a_grey_difference() -> None:
    sheet = contact_sheet([Row("", noise(), noise(), math.inf, 1.0)], title="")
    assert part_in_frame(sheet, (128, 128, 128)).shape == (256, 256, 3)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_takes_grey_colour_and_cmyk(channels: int) -> None:
    assert contact_sheet([row(noise(channels=channels))], title="").mode == "RGB"


def test_cmyk_is_shown_in_its_colours() -> None:
    printed = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    inverted = 255 - np.asarray(printed)
    sheet = contact_sheet([Row("", inverted, inverted // 2, 10.0, 0.5)], title="")
    assert part_in_frame(sheet, RED).shape == (256, 256, 3)


@pytest.mark.parametrize(
    "name",
    ["", "x" * 255, "日本語", "naïve façade", "two\nlines", "\x00\x1b[31m", "caf\udce9", "👩‍👩‍👧", "עברית", " "],
    ids=ascii,
)
def test_any_name_is_one_line_within_its_card(name: str) -> None:
    plain, named = (np.asarray(contact_sheet([row(noise(), label=label)], title=label)) for label in ("", name))
    assert named.shape == plain.shape
    rows, columns = np.nonzero((named != plain).any(-1))
    assert 46 <= columns.min(initial=46) <= columns.max(initial=46) < named.shape[1] - 46
    label = rows[rows > 100]
    assert np.ptp(label) < 30 if len(label) else name.strip() == ""


def test_a_long_subtitle_takes_the_lines_it_needs() -> None:
    texts = ("tone", "tone:strength=0.36:grid=4," * 8 + "end", "tone:strength=0.36:grid=4," * 8 + "END")
    short, long, other = (np.asarray(contact_sheet([row(noise())], title="", subtitle=text)) for text in texts)
    more = len(long) - len(short)
    assert more > 0
    assert (long[115 + more :] == short[115:]).all()  # all below the subtitle moves down
    rows, columns = np.nonzero((long != other).any(-1))
    assert len(rows), "its end was cut off"
    assert rows.max() < 115 + more
    assert columns.max() < long.shape[1] - 46


def test_a_subtitle_stands_between_the_title_and_the_headings() -> None:
    without, with_one = (
        np.asarray(contact_sheet([row(noise())], title="title", subtitle=text)) for text in ("", "layers " * 100)
    )
    rows, columns = np.nonzero((without != with_one).any(-1))
    inked = np.flatnonzero((without != 255).any((1, 2)))
    title, headings = inked[inked < 90].max(), inked[inked > 115].min()
    assert title < rows.min() <= rows.max() < headings
    assert 46 <= columns.min() <= columns.max() < without.shape[1] - 46


@pytest.mark.parametrize(("count", "columns"), [(0, 3), (1, 1), (4, 1), (5, 2), (12, 2), (13, 3), (30, 3)])
def test_many_rows_take_columns(count: int, columns: int) -> None:
    sheet = contact_sheet([row(noise())] * count, title="many")
    one = contact_sheet([row(noise())], title="many").width
    assert (sheet.width - 48) // (one - 48) == columns if count else sheet.height > 0


def test_a_sheet_is_cut_and_says_so() -> None:
    full = contact_sheet([row(noise())] * MAX_ROWS, title="many")
    cut = contact_sheet([row(noise())] * (MAX_ROWS + 1), title="many")
    assert cut.size == full.size
    rows, columns = np.nonzero((np.asarray(cut) != np.asarray(full)).any(-1))
    assert rows.max() < 100 < full.width / 2 < columns.min()


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (300, 7)])
def test_odd_shapes(shape: tuple[int, int]) -> None:
    assert contact_sheet([row(noise(*shape))], title="odd").size == contact_sheet([row(noise())], title="odd").size
