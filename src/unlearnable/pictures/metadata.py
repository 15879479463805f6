"""What a picture file says beside its pixels: kept, except for thumbnails, which show the unprotected picture."""

import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

_EXIF_HEADER: Final = b"Exif\0\0"
_THUMBNAIL_START, _THUMBNAIL_LENGTH = 0x0201, 0x0202  # of one in JPEG
_STRIP_STARTS, _STRIP_LENGTHS = 0x0111, 0x0117  # of one that is not compressed
_SHORT: Final = 3  # a type of EXIF, of two bytes
# Whatever the prefixes are: a list of thumbnails, and what such a list holds (namespace http://ns.adobe.com/xap/1.0/g/img/).
_XMP_THUMBNAILS: Final = re.compile(
    rb"""<([\w.-]+:Thumbnails)\b[^>]*(?<!/)>.*?</\1\s*>|<([\w.-]+:image)\b[^>]*(?<!/)>.*?</\2\s*>"""
    rb"""|\s[\w.-]+:image\s*=\s*("[^"]*"|'[^']*')""",
    re.DOTALL,
)
_EMBEDDED_JPEG: Final = re.compile(rb"\xff\xd8\xff.*?(?:\xff\xd9|\Z)", re.DOTALL)  # previews in makers' notes
_PNG_XMP: Final = b"XML:com.adobe.xmp\0"
_PNG_PROFILE: Final = b"Raw profile type "  # EXIF or XMP in hexadecimal digits, thumbnails and all
_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT: Final = frozenset(
    (b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"pHYs", b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"tIME")
)

# ITU-T T.81, table K.1: the luminance quantisation that nearly every encoder scales by its quality setting.
_STANDARD: Final = np.array(
    [16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29,
     51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121,
     120, 101, 72, 92, 95, 98, 112, 100, 103, 99]
)  # fmt: skip


def _scaled_tables() -> NDArray[np.int64]:
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.asarray(np.clip((_STANDARD * scale[:, None] + 50) // 100, 1, 255))


_TABLES: Final = _scaled_tables()


def jpeg_quality(tables: Mapping[int, Sequence[int]]) -> int:
    """Estimate the quality setting, 1 to 100, of a JPEG file from its quantisation tables, in natural order.

    >>> jpeg_quality({0: _TABLES[75 - 1].tolist()})
    75
    """
    return _quality_of(tuple(tables[min(tables)]))


def jpeg_noise(tables: Mapping[int, Sequence[int]]) -> float:
    """Estimate the standard deviation, in grey levels, of what quantisation by these tables does to a picture.

    That of rounding each coefficient of the (orthonormal) cosine transform to a multiple of its table's entry.
    """
    luminance = np.asarray(tables[min(tables)], np.float64)
    return float(np.sqrt((luminance**2).mean() / 12))


@lru_cache(256)  # the pictures of a folder mostly share their tables
def _quality_of(luminance: tuple[int, ...]) -> int:
    return int(np.abs(_TABLES - np.asarray(luminance)).sum(1).argmin()) + 1


def without_thumbnail(exif: bytes) -> bytes:
    """Cut the thumbnail out of an EXIF block; every other byte stays where it is, so that no pointer breaks."""
    start = len(_EXIF_HEADER) if exif.startswith(_EXIF_HEADER) else 0
    order = {b"II": "<", b"MM": ">"}.get(exif[start : start + 2])
    if order is None:
        return b""
    block = bytearray(exif)

    def number(kind: str, at: int) -> int:
        return int(struct.unpack_from(order + kind, block, start + at)[0])

    def numbers(entry: int) -> list[int]:
        """Read all the values of an entry: in it, or where it points."""
        kind, size = ("H", 2) if number("H", entry + 2) == _SHORT else ("I", 4)
        count = number("I", entry + 4)
        at = entry + 8 if count * size <= 4 else number("I", entry + 8)
        if count > len(exif):
            raise struct.error("more values than bytes")
        return [number(kind, at + size * i) for i in range(count)]

    try:
        first = number("I", 4)
        link = first + 2 + 12 * number("H", first)
        second = number("I", link)
        if second == 0:
            return _EMBEDDED_JPEG.sub(_blank, exif)
        count = number("H", second)
        entries = [second + 2 + 12 * i for i in range(count)]
        values = {number("H", entry): number("I", entry + 8) for entry in entries}
        struct.pack_into("I", block, start + link, 0)
        spans = [(second, 2 + 12 * count + 4)]
        if _THUMBNAIL_START in values:
            spans.append((values[_THUMBNAIL_START], values.get(_THUMBNAIL_LENGTH, 0)))
        places = {number("H", entry): entry for entry in entries}
        if _STRIP_STARTS in places and _STRIP_LENGTHS in places:
            spans += zip(numbers(places[_STRIP_STARTS]), numbers(places[_STRIP_LENGTHS]), strict=False)
    except struct.error:  # it points outside itself: readers differ in what they make of it, so none gets it
        return b""
    for at, length in spans:
        here = block[start + at : start + at + length]
        block[start + at : start + at + length] = bytes(len(here))
    return _EMBEDDED_JPEG.sub(_blank, bytes(block))


def _blank(found: re.Match[bytes]) -> bytes:
    return bytes(len(found[0]))


def without_xmp_thumbnails(packet: bytes) -> bytes:
    """Cut the thumbnails out of an XMP packet; drop one in an encoding of two or four bytes, which is never used."""
    return b"" if b"\0" in packet else _XMP_THUMBNAILS.sub(b"", packet)


def is_deep_colour_png(data: bytes) -> bool:
    """Tell whether these are the bytes of a PNG file of 16 bits a sample and more than one channel."""
    return (
        data.startswith(_PNG_SIGNATURE) and data[12:16] == b"IHDR" and data[24:25] == b"\x10" and data[25:26] != b"\0"
    )


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Go through the chunks of a PNG file: (type, content). Stops where the file is cut short."""
    at = len(_PNG_SIGNATURE)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Write one chunk of a PNG file."""
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def png_metadata(source: bytes) -> list[tuple[bytes, bytes]]:
    """Collect the chunks of a PNG file that say something about the picture, without thumbnails."""
    kept = []
    for kind, content in png_chunks(source):
        if kind == b"eXIf":
            content = without_thumbnail(content)
        elif kind == b"iTXt":
            compressed = content.startswith(_PNG_XMP) and content[len(_PNG_XMP) : len(_PNG_XMP) + 1] != b"\0"
            content = b"" if compressed else without_xmp_thumbnails(content)
        elif content.startswith(_PNG_PROFILE):
            content = b""
        if kind in _PNG_KEPT and content:
            kept.append((kind, content))
    return kept


def with_png_metadata(data: bytes, metadata: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Write these chunks into a PNG file that has none of them, before its pixels."""
    at = len(_PNG_SIGNATURE) + 12 + 13
    return data[:at] + b"".join(png_chunk(kind, content) for kind, content in metadata) + data[at:]
