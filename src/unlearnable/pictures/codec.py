"""One encoded picture in, one out: its samples may change, everything else about it stays."""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from unlearnable.pictures import metadata
from unlearnable.pictures.samples import Part

Format = Literal["keep", "png", "webp", "jpeg"]

MAX_PIXELS: Final = 250_000_000
"""Pixels that a picture may declare; one that declares more is refused before memory is taken for it."""

LEAST_QUALITY: Final = 90
"""JPEG quality that the default does not go below, however low the source's own."""

SUFFIXES: Final = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}
"""What a file is called after a change of format."""

_PART: Final = 128  # pixels along a side that are read again of a JPEG
_BLOCK: Final = 16  # a multiple of what JPEG codes together, however its colours are thinned out
_COMPRESSION: Final = 4  # of PNG: on photographs twice as fast as Pillow's default, for 2 % larger files
_READABLE: Final = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
_LOSSLESS_TIFF: Final = frozenset(("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "lzma", "zstd"))
_ORIENTATION, _XMP = 0x0112, 0x02BC  # tags of EXIF and TIFF
_TURNED_BACK: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
# Of the tags of a TIFF file, those that describe the picture; the others say how its samples are stored.
# ImageDescription, Make, Model, Orientation, Software, DateTime, Artist, HostComputer, XMP, Copyright, IPTC, EXIF, GPS.
_TIFF_KEPT: Final = frozenset((270, 271, 272, 274, 305, 306, 315, 316, 700, 33432, 33723, 34665, 34853))
_ALPHA_FORMATS: Final = frozenset(("PNG", "WEBP", "TIFF", "GIF", "JPEG2000", "AVIF"))


class PictureError(Exception):
    """A picture that cannot be read or written, and why. It never stops the others."""


@dataclass
class Picture:
    """A decoded picture.

    pixels: (height, width, 1, 3 or 4) uint8 or uint16; CMYK is inverted, so that 0 is dark in every kind of picture.
    alpha: (height, width) of the same type, or None.
    format: as Pillow names it; "JPEG" for the first picture of an MPO file (its others are previews and depth maps).
    info: what Pillow needs to write the same metadata; chunks: the same for PNG.
    noise: standard deviation, in grey levels, of what the format's loss has done to the pixels; 0 without loss.
    """

    pixels: NDArray[np.unsignedinteger[Any]]
    alpha: NDArray[np.unsignedinteger[Any]] | None
    format: str
    info: dict[str, Any] = field(default_factory=dict)
    chunks: list[tuple[bytes, bytes]] = field(default_factory=list)
    noise: float = 0.0


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
    """Turn whatever a decoder or encoder raises over a bad picture into PictureError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # broken EXIF and the like: the picture itself is fine
            yield
    except (PictureError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise PictureError("not a picture of a known format") from None
    except Image.DecompressionBombError:
        raise PictureError(f"declares more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # there is no telling what a decoder makes of bytes that somebody else has written
        raise PictureError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None


def decode(data: bytes) -> Picture:
    """Read an encoded picture. Raises PictureError for whatever cannot be read in full."""
    if not data:
        raise PictureError("empty file")
    with _reasons(), _bomb_limit(), Image.open(io.BytesIO(data), formats=_READABLE) as image:
        if image.width * image.height > MAX_PIXELS:
            raise PictureError(f"declares {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are read")
        kind = image.format or ""
        if kind == "MPO":
            kind = "JPEG"
        elif getattr(image, "is_animated", False):
            raise PictureError(f"{getattr(image, 'n_frames', 'several')} frames: animations are not supported")
        info = _metadata(image, kind)
        chunks = metadata.png_metadata(data) if kind == "PNG" else []
        if metadata.is_deep_colour_png(data):
            from unlearnable.pictures import png16

            samples: NDArray[np.unsignedinteger[Any]] = png16.decode(data)
            colours = samples.shape[2] - 1 + samples.shape[2] % 2
            alpha = samples[..., colours] if colours < samples.shape[2] else None
            return Picture(samples[..., :colours], alpha, kind, info, chunks)
        if image.mode in ("RGB", "RGBA") and any(";16" in str(tile.args) for tile in image.tile):
            raise PictureError("16-bit colour is read from PNG only; convert the file to PNG")
        orientation = image.getexif().get(_ORIENTATION) if kind == "TIFF" else None
        image.load()
        # Pillow turns TIFF pictures, and no others, upright. They stay as they are stored, like the tag that says so.
        turned = image.transpose(_TURNED_BACK[orientation]) if orientation in _TURNED_BACK else image
        pixels, alpha = _samples(turned)
        noise = metadata.jpeg_noise(image.quantization) if isinstance(image, JpegImagePlugin.JpegImageFile) else 0.0
    return Picture(pixels, alpha, kind, info, chunks, noise)


@contextlib.contextmanager
def _bomb_limit() -> Iterator[None]:
    """Let Pillow refuse what we refuse, instead of its own, lower limit."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow raises at twice this
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _samples(image: Image.Image) -> tuple[NDArray[np.unsignedinteger[Any]], NDArray[np.unsignedinteger[Any]] | None]:
    mode = image.mode
    if "transparency" in image.info and mode in ("1", "L", "P", "RGB"):
        grey = mode in ("1", "L")
        image, mode = image.convert("RGBA"), "RGBA"
        if grey:
            image, mode = image.convert("LA"), "LA"
    match mode:
        case "1":
            image = image.convert("L")
        case "P" | "RGBX":
            image = image.convert("RGB")
        case "PA" | "RGBa":
            image = image.convert("RGBA")
        case "La":
            image = image.convert("LA")
        case "L" | "LA" | "RGB" | "RGBA" | "CMYK" | "I;16" | "I;16B" | "I;16L" | "I;16N":
            pass
        case _:
            raise PictureError(f"pictures of mode {mode} are not supported")
    samples = np.asarray(image)
    if image.mode == "CMYK":
        return 255 - samples, None
    if image.mode in ("LA", "RGBA"):
        return np.ascontiguousarray(samples[..., :-1]), samples[..., -1]
    if samples.ndim == 2:
        samples = samples[..., None]
    return samples.astype(np.uint16) if samples.dtype.itemsize == 2 else samples, None


def _metadata(image: Image.Image, kind: str) -> dict[str, Any]:
    """Collect what to hand to Pillow's ``save`` so that the new file says what the old one said."""
    info = image.info
    kept: dict[str, Any] = {name: info[name] for name in ("icc_profile", "dpi", "comment") if info.get(name)}
    if kind == "TIFF":
        exif = image.getexif()
        for tag in set(exif) - _TIFF_KEPT:
            del exif[tag]
        if isinstance(exif.get(_XMP), bytes):
            exif[_XMP] = metadata.without_xmp_thumbnails(exif[_XMP])
        kept["exif"] = metadata.without_thumbnail(exif.tobytes()) if len(exif) else b""
        compression = info.get("compression", "raw")
        kept["compression"] = compression if compression in _LOSSLESS_TIFF else "tiff_deflate"
    elif isinstance(info.get("exif"), bytes):
        kept["exif"] = metadata.without_thumbnail(info["exif"])
    if isinstance(info.get("xmp"), bytes):
        kept["xmp"] = metadata.without_xmp_thumbnails(info["xmp"])
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        kept["quality"] = max(LEAST_QUALITY, metadata.jpeg_quality(image.quantization))
        kept["subsampling"] = max(0, JpegImagePlugin.get_sampling(image))
        kept["progressive"] = bool(info.get("progressive"))
    return {name: value for name, value in kept.items() if value != b""}


def keeps_all(picture: Picture, pixels: NDArray[np.unsignedinteger[Any]], to: Format) -> bool:
    """Tell whether :func:`encode` would keep every sample as it is."""
    kind = picture.format if to == "keep" else to.upper()
    if kind in ("JPEG", "AVIF") or (kind == "GIF" and pixels.shape[2] > 1):
        return False
    return pixels.dtype == np.uint8 or _holds_16_bits(kind, pixels, picture.alpha)


def _holds_16_bits(kind: str, pixels: NDArray[Any], alpha: NDArray[Any] | None) -> bool:
    return kind == "PNG" or (kind == "TIFF" and pixels.shape[2] == 1 and alpha is None)


def encode(picture: Picture, pixels: NDArray[np.unsignedinteger[Any]], to: Format, quality: int | None) -> bytes:
    """Write other pixels in place of a picture's own.

    ``to``: the file format, "keep" for the picture's own. ``quality``: of JPEG, 1 to 100; by default the source's
    own, but at least 90. All other formats are written without loss, but for AVIF (at its highest quality) and GIF
    (at most 256 colours).

    Raises PictureError where the format cannot hold the picture.
    """
    kind = picture.format if to == "keep" else to.upper()
    alpha = picture.alpha
    if alpha is not None and kind not in _ALPHA_FORMATS:
        if (alpha < np.iinfo(alpha.dtype).max).any():
            raise PictureError(f"transparency cannot be stored as {kind}")
        alpha = None
    if pixels.dtype == np.uint16 and not _holds_16_bits(kind, pixels, alpha):
        pixels = (pixels >> np.uint16(8)).astype(np.uint8)
        alpha = None if alpha is None else (alpha >> np.uint16(8)).astype(np.uint8)
    with _reasons():
        if pixels.dtype == np.uint16 and (pixels.shape[2] > 1 or alpha is not None):
            from unlearnable.pictures import png16

            joined = pixels if alpha is None else np.dstack((pixels, alpha))
            return metadata.with_png_metadata(png16.encode(joined), picture.chunks)
        image = _image(pixels, alpha)
        if image.mode == "CMYK" and kind not in ("JPEG", "TIFF"):
            raise PictureError(f"CMYK cannot be stored as {kind}")
        out = io.BytesIO()
        _SAVERS.get(kind, _save_plain)(image, out, picture, kind, quality)
    data = out.getvalue()
    return metadata.with_png_metadata(data, picture.chunks) if kind == "PNG" else data


def _image(pixels: NDArray[np.unsignedinteger[Any]], alpha: NDArray[np.unsignedinteger[Any]] | None) -> Image.Image:
    if alpha is not None:
        return Image.fromarray(np.dstack((pixels, alpha)))
    if pixels.shape[2] == 4:
        return Image.merge("CMYK", [Image.fromarray(255 - pixels[..., c]) for c in range(4)])
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _kept(picture: Picture, *names: str) -> dict[str, Any]:
    return {name: picture.info[name] for name in names if name in picture.info}


def stored(
    picture: Picture, pixels: NDArray[np.unsignedinteger[Any]], data: bytes, to: Format, quality: int | None
) -> tuple[NDArray[np.unsignedinteger[Any]], Part]:
    """Read again what :func:`encode` has made of pixels; of a large JPEG the middle, which stands for it.

    Unless the middle is black and white for the most part: there hardly any noise is left that could be measured.

    Returns the samples, and which rows and columns they are of. JPEG codes blocks of 8 or 16 pixels each by itself: cut
    out along their borders, a part comes out as it does in the whole picture, but for the colours of its outermost
    pixels.

    Raises PictureError where it cannot be read.
    """
    height, width = pixels.shape[:2]
    part = _middle(height), _middle(width)
    middle, full = pixels[part], np.iinfo(pixels.dtype).max
    if (
        (picture.format if to == "keep" else to.upper()) != "JPEG"
        or height * width <= 4 * _PART**2
        or ((middle == 0) | (middle == full)).mean() > 0.5
    ):
        return decode(data).pixels, (slice(height), slice(width))
    coding = replace(picture, alpha=None, info=_kept(picture, "quality", "subsampling"))
    return decode(encode(coding, np.ascontiguousarray(middle), "jpeg", quality)).pixels, part


def _middle(length: int) -> slice:
    start = max(0, (length - _PART) // 2) // _BLOCK * _BLOCK
    return slice(start, start + _PART)  # or up to the border, if that is nearer


def _save_jpeg(image: Image.Image, out: io.BytesIO, picture: Picture, kind: str, quality: int | None) -> None:
    own = {"quality": 95, "subsampling": 0} | _kept(picture, "quality", "subsampling", "progressive")
    if quality is not None:
        own["quality"] = quality
    image.save(out, "JPEG", **own, **_kept(picture, "exif", "icc_profile", "dpi", "comment", "xmp"))


def _save_png(image: Image.Image, out: io.BytesIO, picture: Picture, kind: str, quality: int | None) -> None:
    own = {} if picture.chunks else _kept(picture, "exif", "icc_profile", "dpi")
    image.save(out, "PNG", compress_level=_COMPRESSION, **own)


def _save_webp(image: Image.Image, out: io.BytesIO, picture: Picture, kind: str, quality: int | None) -> None:
    image.save(out, "WEBP", lossless=True, exact=True, **_kept(picture, "exif", "icc_profile", "xmp"))


def _save_tiff(image: Image.Image, out: io.BytesIO, picture: Picture, kind: str, quality: int | None) -> None:
    image.save(out, "TIFF", **_kept(picture, "exif", "icc_profile", "dpi", "compression"))


def _save_avif(image: Image.Image, out: io.BytesIO, picture: Picture, kind: str, quality: int | None) -> None:
    image.save(out, "AVIF", quality=100, subsampling="4:4:4", **_kept(picture, "exif", "icc_profile", "xmp"))


def _save_gif(image: Image.Image, out: io.BytesIO, picture: Picture, kind: str, quality: int | None) -> None:
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGBA").quantize(256, method=Image.Quantize.FASTOCTREE)
    image.save(out, "GIF", **_kept(picture, "comment"))


def _save_plain(image: Image.Image, out: io.BytesIO, picture: Picture, kind: str, quality: int | None) -> None:
    image.save(out, kind, **_kept(picture, "dpi", "icc_profile"))


_Saver = Callable[[Image.Image, io.BytesIO, Picture, str, int | None], None]
_SAVERS: Final[dict[str, _Saver]] = {
    "JPEG": _save_jpeg,
    "PNG": _save_png,
    "WEBP": _save_webp,
    "TIFF": _save_tiff,
    "AVIF": _save_avif,
    "GIF": _save_gif,
}
