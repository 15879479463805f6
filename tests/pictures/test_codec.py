"""Pictures in and out: what changes, what stays, what is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, JpegImagePlugin

from tests.conftest import draw_picture
from unlearnable.pictures import codec, metadata, png16
from unlearnable.pictures.codec import PictureError, decode, encode

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LOSSLESS = ["PNG", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "GIF"]


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def opened(data):
    return Image.open(io.BytesIO(data))


def exif(**tags):
    block = Image.Exif()
    block[0x0112] = tags.get("orientation", 6)
    block[0x010E] = "a description"
    block[0x9003] = "2020:01:02 03:04:05"
    return block


def with_thumbnail(order):
    """An EXIF block with one tag in its first directory and a thumbnail, secret, in its second."""
    thumbnail = b"\xff\xd8 the unprotected picture \xff\xd9"
    first = struct.pack(order + "H", 1) + struct.pack(order + "HHI", 0x0112, 3, 1) + struct.pack(order + "HH", 6, 0)
    second_at = 8 + len(first) + 4
    data_at = second_at + 2 + 24 + 4
    second = struct.pack(order + "H", 2)
    second += struct.pack(order + "HHII", 0x0201, 4, 1, data_at) + struct.pack(
        order + "HHII", 0x0202, 4, 1, len(thumbnail)
    )
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return b"Exif\0\0" + head + first + struct.pack(order + "I", second_at) + second + bytes(4) + thumbnail


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1", "CMYK"])
def test_lossless_round_trip(kind, mode, rng):
    image = draw_picture(rng).convert(mode)
    if mode == "RGBA":
        image.putalpha(draw_picture(rng).convert("L"))
    try:
        data = saved(image, kind)
    except (OSError, ValueError):
        pytest.skip(f"{kind} has no {mode}")
    if (kind, mode) in {("JPEG2000", "CMYK"), ("GIF", "RGBA"), ("GIF", "1")}:
        pytest.skip("Pillow reads what it cannot write again")
    before = decode(data)
    after = decode(encode(before, before.pixels, "keep", None))
    assert np.array_equal(after.pixels, before.pixels)
    assert (after.alpha is None) == (before.alpha is None)
    assert before.alpha is None or np.array_equal(after.alpha, before.alpha)
    assert opened(encode(before, before.pixels, "keep", None)).format == kind


@pytest.mark.parametrize("kind", [*LOSSLESS, "JPEG", "AVIF"])
@pytest.mark.parametrize(("dtype", "shape"), [(np.uint8, (40, 30, 3)), (np.uint8, (40, 30)), (np.uint16, (40, 30))])
def test_what_keeps_every_sample_is_known(kind, dtype, shape, rng):
    """Of noise, which no format finds easy."""
    try:
        picture = decode(saved(Image.fromarray(rng.integers(0, np.iinfo(dtype).max + 1, shape, dtype)), kind))
    except (OSError, ValueError, PictureError):
        pytest.skip(f"{kind} has no such pictures")
    other = rng.integers(0, np.iinfo(picture.pixels.dtype).max + 1, picture.pixels.shape, picture.pixels.dtype)
    for to in ("keep", "png", "webp", "jpeg"):
        found = decode(encode(picture, other, to, None)).pixels
        same = found.dtype == other.dtype and (found == other).all()
        if (to, kind, other.shape[2]) == ("keep", "AVIF", 1):
            continue  # Pillow's encoder happens to keep these
        assert codec.keeps_all(picture, other, to) == same


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [None, 30])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_part_of_a_jpeg_is_read_again_as_it_is_in_the_whole(mode, quality, subsampling, rng):
    shape = {"RGB": (301, 460, 3), "L": (460, 301), "CMYK": (301, 460, 4)}[mode]
    data = saved(
        Image.fromarray(rng.integers(0, 256, shape, np.uint8), mode), "JPEG", quality=95, subsampling=subsampling
    )
    picture = decode(data)
    written = encode(picture, picture.pixels, "keep", quality)
    samples, part = codec.stored(picture, picture.pixels, written, "keep", quality)
    whole = decode(written).pixels[part]
    assert samples.shape == whole.shape == (128, 128, picture.pixels.shape[2])
    assert np.array_equal(samples[2:-2, 2:-2], whole[2:-2, 2:-2])
    assert not np.array_equal(samples, picture.pixels[part])


@pytest.mark.parametrize(("kind", "shape"), [("PNG", (301, 460, 3)), ("JPEG", (256, 256, 3)), ("GIF", (301, 460, 3))])
def test_other_pictures_are_read_again_as_a_whole(kind, shape, rng):
    picture = decode(saved(Image.fromarray(rng.integers(0, 256, shape, np.uint8)), kind))
    written = encode(picture, picture.pixels, "keep", None)
    samples, part = codec.stored(picture, picture.pixels, written, "keep", None)
    assert np.array_equal(samples, decode(written).pixels)
    assert picture.pixels[part].shape == picture.pixels.shape


def test_a_jpeg_with_a_white_middle_is_read_again_as_a_whole(rng):
    pixels = rng.integers(0, 256, (301, 460, 3), np.uint8)
    pixels[60:240, 150:310] = 255
    picture = decode(saved(Image.fromarray(pixels), "JPEG", quality=95))
    written = encode(picture, pixels, "keep", None)
    assert codec.stored(picture, pixels, written, "keep", None)[0].shape == pixels.shape


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_metadata_survives(kind, rng):
    options = {"exif": exif(), "icc_profile": ICC} | ({"dpi": (300, 300)} if kind != "WEBP" else {})
    data = saved(draw_picture(rng), kind, **options)
    picture = decode(data)
    before, after = opened(data), opened(encode(picture, 255 - picture.pixels, "keep", None))
    assert after.size == before.size
    assert after.info["icc_profile"] == ICC
    assert {tag: after.getexif()[tag] for tag in (0x0112, 0x010E)} == {0x0112: 6, 0x010E: "a description"}
    if kind != "WEBP":
        assert after.info["dpi"] == pytest.approx((300, 300), abs=0.01)


def test_text_gamma_and_time_of_a_png_survive(rng):
    kept = [(b"gAMA", b"\0\0\xb1\x8f"), (b"tEXt", b"Author\0me"), (b"tIME", b"\x07\xe4\1\2\3\4\5")]
    data = metadata.with_png_metadata(saved(draw_picture(rng), "PNG"), [*kept, (b"prVt", b"unknown")])
    picture = decode(data)
    chunks = list(metadata.png_chunks(encode(picture, picture.pixels, "keep", None)))
    assert [chunk for chunk in chunks if chunk[0] in (b"gAMA", b"tEXt", b"tIME", b"prVt")] == kept


@pytest.mark.parametrize("order", ["<", ">"])
def test_no_thumbnail_of_the_original_is_published(order, rng):
    block = with_thumbnail(order)
    assert b"unprotected" in block
    for kind in ("JPEG", "WEBP", "PNG"):
        data = saved(draw_picture(rng), kind, exif=block)
        assert b"unprotected" in data
        out = encode(decode(data), decode(data).pixels, "keep", None)
        assert b"unprotected" not in out
        assert opened(out).getexif()[0x0112] == 6
    packet = b"<x><xmp:Thumbnails>\nunprotected</xmp:Thumbnails><a>kept</a></x>"
    out = encode(decode(saved(draw_picture(rng), "JPEG", xmp=packet)), np.zeros((24, 20, 3), np.uint8), "keep", None)
    assert b"unprotected" not in out
    assert b"kept" in out


@pytest.mark.parametrize("strips", [1, 3])
@pytest.mark.parametrize("order", ["<", ">"])
def test_no_uncompressed_thumbnail_is_published(order, strips, rng):
    """Samples of a thumbnail lie in strips, whose places lie in the directory or are pointed at from there."""
    strip = b" the unprotected picture "
    pack = lambda kind, *values: struct.pack(order + kind, *values)  # noqa: E731
    head = (b"II" if order == "<" else b"MM") + pack("HI", 42, 8)
    second_at = 8 + 2 + 12 + 4
    lists_at = second_at + 2 + 2 * 12 + 4
    data_at = lists_at + (8 * strips if strips > 1 else 0)
    starts, lengths = [data_at + len(strip) * n for n in range(strips)], [len(strip)] * strips
    at = (lists_at, lists_at + 4 * strips) if strips > 1 else (starts[0], lengths[0])
    second = pack("H", 2) + pack("HHII", 0x0111, 4, strips, at[0]) + pack("HHII", 0x0117, 4, strips, at[1]) + bytes(4)
    lists = pack(f"{2 * strips}I", *starts, *lengths) if strips > 1 else b""
    first = pack("H", 1) + pack("HHIHH", 0x0112, 3, 1, 6, 0) + pack("I", second_at)
    block = b"Exif\0\0" + head + first + second + lists + strip * strips
    for kind in ("JPEG", "WEBP", "PNG"):
        data = saved(draw_picture(rng), kind, exif=block)
        assert data.count(strip) == strips
        out = encode(decode(data), decode(data).pixels, "keep", None)
        assert b"unprotected" not in out
        assert opened(out).getexif()[0x0112] == 6


@pytest.mark.parametrize(
    "hidden",
    [
        b"<xap:Thumbnails><rdf:li>unprotected</rdf:li></xap:Thumbnails>",
        b"<xmp:Thumbnails rdf:parseType='Resource'>unprotected</xmp:Thumbnails>",
        b"<xapGImg:image>unprotected</xapGImg:image>",
        b"<rdf:li xmpGImg:width='9' xmpGImg:image='unprotected'/>",
    ],
)
def test_no_thumbnail_hides_behind_another_name(hidden, rng):
    packet = b"<x><a b='kept'/>" + hidden + b"<c>kept</c></x>"
    for kind in ("JPEG", "WEBP"):
        picture = decode(saved(draw_picture(rng), kind, xmp=packet))
        out = encode(picture, picture.pixels, "keep", None)
        assert b"unprotected" not in out
        assert out.count(b"kept") == 2
    assert metadata.without_xmp_thumbnails(packet.decode().encode("utf-16")) == b""


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "AVIF"])
def test_whatever_is_wrong_with_a_file_is_an_error_of_that_picture(kind, rng):
    whole = saved(draw_picture(rng), kind)
    reasons = []
    for _ in range(60):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 1 + int(rng.integers(8))):
            data[at] = rng.integers(256)
        cut = bytes(data[: rng.integers(1, len(data) + 1)]) if rng.random() < 0.3 else bytes(data)
        try:
            decode(cut)
        except PictureError as error:
            reasons.append(str(error))
    assert reasons
    assert all(len(reason.splitlines()) == 1 for reason in reasons)


def test_no_preview_hides_elsewhere(rng):
    preview = b"\xff\xd8\xff the unprotected picture \xff\xd9"
    block = Image.Exif()
    block[0x0112] = 6
    block.get_ifd(0x8769)[0x927C] = b"MAKER" + preview + b"after"
    out = encode(decode(saved(draw_picture(rng), "JPEG", exif=block)), np.zeros((24, 20, 3), np.uint8), "keep", None)
    assert b"unprotected" not in out
    assert b"after" in out
    packed = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<xmp:Thumbnails>unprotected</xmp:Thumbnails>")
    chunks = [(b"iTXt", packed), (b"tEXt", b"Raw profile type exif\0756e70726f746563746564"), (b"tEXt", b"Author\0me")]
    picture = decode(metadata.with_png_metadata(saved(draw_picture(rng), "PNG"), chunks))
    assert picture.chunks == [(b"tEXt", b"Author\0me")]
    tiff = decode(saved(draw_picture(rng), "TIFF", tiffinfo={700: b"<xmp:Thumbnails>unprotected</xmp:Thumbnails>"}))
    assert b"unprotected" not in encode(tiff, tiff.pixels, "keep", None)


def test_exif_that_points_outside_itself_is_dropped():
    block = with_thumbnail("<")
    assert metadata.without_thumbnail(block[:30]) == b""
    assert metadata.without_thumbnail(b"garbage") == b""
    no_second = block[: 6 + 8 + 2 + 12] + bytes(4)
    assert metadata.without_thumbnail(no_second) == no_second


@pytest.mark.parametrize("quality", [10, 35, 50, 75, 88, 90, 92, 95, 99, 100])
def test_quality_is_read_from_the_tables(quality, rng):
    image = opened(saved(draw_picture(rng), "JPEG", quality=quality))
    assert metadata.jpeg_quality(image.quantization) == quality


@pytest.mark.parametrize(("own", "asked", "wanted"), [(75, None, 90), (97, None, 97), (97, 60, 60), (75, 100, 100)])
def test_jpeg_quality_and_sampling(own, asked, wanted, rng):
    for subsampling in (0, 1, 2):
        data = saved(
            draw_picture(rng, 64, 64), "JPEG", quality=own, subsampling=subsampling, progressive=subsampling == 1
        )
        picture = decode(data)
        out = opened(encode(picture, picture.pixels, "keep", asked))
        assert metadata.jpeg_quality(out.quantization) == wanted
        assert JpegImagePlugin.get_sampling(out) == subsampling
        assert bool(out.info.get("progressive")) == (subsampling == 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_stays_as_it_is_stored(orientation, rng):
    """Pillow turns TIFF pictures upright when it loads them, and only those."""
    stored = draw_picture(rng, 8, 12)
    data = saved(stored, "TIFF", exif=exif(orientation=orientation))
    picture = decode(data)
    assert np.array_equal(picture.pixels, np.asarray(stored))
    again = decode(encode(picture, picture.pixels, "keep", None))
    assert np.array_equal(again.pixels, picture.pixels)
    assert opened(encode(picture, picture.pixels, "keep", None)).getexif()[0x0112] == orientation


def test_palette_with_transparency_and_colour_keys(rng):
    palette = draw_picture(rng).quantize(16)
    for image, options in ((palette, {"transparency": 3}), (draw_picture(rng).convert("L"), {"transparency": 9})):
        data = saved(image, "PNG", **options)
        picture = decode(data)
        assert picture.alpha is not None
        assert np.array_equal(picture.alpha, np.asarray(opened(data).convert("RGBA"))[..., 3])


def test_sixteen_bit_grey(rng):
    image = Image.fromarray(rng.integers(0, 65536, (9, 7), dtype=np.uint16))
    for kind in ("PNG", "TIFF"):
        picture = decode(saved(image, kind))
        assert picture.pixels.dtype == np.uint16
        assert np.array_equal(
            decode(encode(picture, picture.pixels, "keep", None)).pixels, np.asarray(image)[..., None]
        )


def filtered_png(samples, filters):
    """Write a 16-bit PNG file with the filter of each line given: slow and by the specification."""
    height, width, channels = samples.shape
    step = 2 * channels
    raw = samples.astype(">u2").tobytes()
    length = width * step
    lines = [raw[y * length : (y + 1) * length] for y in range(height)]
    out = b""
    for y, kind in enumerate(filters):
        above = lines[y - 1] if y else bytes(length)
        line = bytearray()
        for x in range(length):
            a, b = (lines[y][x - step] if x >= step else 0), above[x]
            c = above[x - step] if x >= step else 0
            nearest = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            line.append((lines[y][x] - (0, a, b, (a + b) // 2, nearest)[kind]) % 256)
        out += bytes((kind,)) + line
    colour = {2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    packed = zlib.compress(out)
    body = [(b"IHDR", header), (b"IDAT", packed[:9]), (b"IDAT", packed[9:]), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(metadata.png_chunk(*chunk) for chunk in body)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_sixteen_bit_colour(channels, rng):
    samples = rng.integers(0, 65536, (10, 6, channels), dtype=np.uint16)
    samples[5:] = 1000 + samples[5:] % 7  # smooth lines, so that every branch of the Paeth filter is taken
    data = filtered_png(samples, [0, 1, 2, 3, 4] * 2)
    assert opened(data).size == (6, 10)  # Pillow, which reads 8 bits of it, finds nothing wrong with the file
    assert np.array_equal(png16.decode(data), samples)
    picture = decode(data)
    assert picture.pixels.dtype == np.uint16
    assert picture.pixels.shape[2] == (1 if channels == 2 else 3)
    out = encode(picture, picture.pixels, "keep", None)
    assert np.array_equal(png16.decode(out), samples)
    assert np.array_equal(np.asarray(opened(out)), np.asarray(opened(data)))
    assert decode(encode(picture, picture.pixels, "webp", None)).pixels.dtype == np.uint8


def test_broken_sixteen_bit_colour(rng):
    data = filtered_png(rng.integers(0, 65536, (6, 4, 3), dtype=np.uint16), [0] * 6)
    for broken in (data[:60], data[:46] + b"\xff\xff" + data[48:], data[:28] + b"\1" + data[29:]):
        with pytest.raises(PictureError):
            decode(broken)


def test_cmyk_is_filtered_as_light(rng):
    image = draw_picture(rng, 48, 48).convert("CMYK")
    picture = decode(saved(image, "JPEG", quality=100, icc_profile=ICC))
    assert picture.pixels.shape == (48, 48, 4)
    assert abs(255 - picture.pixels.astype(int) - np.asarray(image)).mean() < 2
    out = opened(encode(picture, picture.pixels, "keep", 100))
    assert (out.mode, out.info["icc_profile"]) == ("CMYK", ICC)
    assert abs(np.asarray(out).astype(int) - np.asarray(image)).mean() < 3


def test_formats_that_cannot_hold_a_picture(rng):
    image = draw_picture(rng)
    image.putalpha(100)
    picture = decode(saved(image, "PNG"))
    with pytest.raises(PictureError, match="transparency cannot be stored as JPEG"):
        encode(picture, picture.pixels, "jpeg", None)
    image.putalpha(255)  # alpha that says nothing can go
    picture = decode(saved(image, "PNG"))
    assert opened(encode(picture, picture.pixels, "jpeg", None)).mode == "RGB"
    cmyk = decode(saved(image.convert("CMYK"), "JPEG"))
    with pytest.raises(PictureError, match="CMYK cannot be stored as PNG"):
        encode(cmyk, cmyk.pixels, "png", None)


def animation(kind, rng):
    frames = [draw_picture(rng) for _ in range(3)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda rng: b"", "empty file"),
        (lambda rng: b"This is no picture.", "not a picture"),
        (lambda rng: saved(draw_picture(rng, 200, 200), "JPEG")[:900], "truncated"),
        (lambda rng: saved(draw_picture(rng, 200, 200), "PNG")[:2000], "trunc|broken"),
        (lambda rng: animation("GIF", rng), "3 frames"),
        (lambda rng: animation("WEBP", rng), "3 frames"),
        (lambda rng: animation("TIFF", rng), "3 frames"),
        (lambda rng: saved(Image.new("F", (3, 3)), "TIFF"), "mode F"),
        (lambda rng: saved(Image.new("RGB", (3, 3)), "PDF"), "not a picture"),
    ],
)
def test_unreadable(data, message, rng):
    with pytest.raises(PictureError, match=message):
        decode(data(rng))


@pytest.mark.parametrize("side", [50_000, 16_000])
def test_a_declared_size_is_checked_before_memory_is_taken(side):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(metadata.png_chunk(*chunk) for chunk in chunks)
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(PictureError, match="declares"):
        decode(bomb)
    assert before == Image.MAX_IMAGE_PIXELS
    assert codec.MAX_PIXELS >= 100_000_000
