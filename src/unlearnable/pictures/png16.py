"""PNG with 16 bits a sample and more than one channel, which Pillow reads as 8 bits.

W3C, "Portable Network Graphics (PNG) Specification", third edition, sections 9 (filtering) and 11 (chunks).
"""

import zlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.compiled import compiled
from unlearnable.pictures.metadata import png_chunk, png_chunks

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_CHANNELS: Final = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type
_COLOUR_TYPES: Final = {channels: kind for kind, channels in _CHANNELS.items()}


def decode(data: bytes) -> NDArray[np.uint16]:
    """Return the picture as (height, width, channels) uint16. Raises ValueError for a broken or interlaced file."""
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data[28] != 0:
        raise ValueError("interlaced 16-bit PNG is not supported")
    channels = _CHANNELS[data[25]]
    length = width * channels * 2
    inflate = zlib.decompressobj()
    size = height * (length + 1)
    packed = b"".join(content for kind, content in png_chunks(data) if kind == b"IDAT")
    try:
        raw = inflate.decompress(packed, size)
        inflate.decompress(inflate.unconsumed_tail, 1)  # on to the checksum
    except zlib.error as error:
        raise ValueError(f"broken pixel data ({error})") from None
    if len(raw) < size or not inflate.eof:
        raise ValueError("pixel data cut short")
    lines = np.frombuffer(raw, np.uint8).reshape(height, length + 1).copy()
    if lines[:, 0].max() > 4:
        raise ValueError("unknown PNG filter")
    unfilter(lines, channels * 2)
    return lines[:, 1:].copy().view(">u2").reshape(height, width, channels).astype(np.uint16)


def encode(pixels: NDArray[np.uint16]) -> bytes:
    """Write (height, width, 2 to 4) uint16 samples as a PNG file, losslessly."""
    height, width, channels = pixels.shape
    flat = pixels.astype(">u2").view(np.uint8).reshape(height, width * channels * 2)
    lines = np.empty((height, flat.shape[1] + 1), np.uint8)
    lines[:, 0] = 2  # "up": each line as its difference from the one above
    lines[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=lines[1:, 1:])
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((16, _COLOUR_TYPES[channels], 0, 0, 0))
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b""))
    return _SIGNATURE + b"".join(png_chunk(kind, content) for kind, content in chunks)


def _unfilter(lines: NDArray[np.uint8], step: int) -> None:
    """Undo the filter of each line, named by its first byte, in place; ``step`` bytes make a pixel."""
    height, size = lines.shape
    above = np.zeros(size, np.uint8)
    for y in range(height):
        line = lines[y]
        kind = line[0]
        for x in range(1, size):
            left = np.int32(line[x - step]) if x > step else np.int32(0)
            up = np.int32(above[x])
            corner = np.int32(above[x - step]) if x > step else np.int32(0)
            guess = np.int32(0)
            if kind == 1:
                guess = left
            elif kind == 2:
                guess = up
            elif kind == 3:
                guess = (left + up) // 2
            elif kind == 4:
                by_left, by_up, by_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
                if by_left <= by_up and by_left <= by_corner:
                    guess = left
                elif by_up <= by_corner:
                    guess = up
                else:
                    guess = corner
            line[x] = (line[x] + guess) & 255
        above = line


unfilter = compiled(_unfilter)
