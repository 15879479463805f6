"""The secret, and the streams of numbers derived from it.

A :class:`Key` is 256 random bits. Everything secret is derived from it with HKDF-SHA256 (RFC 5869); the numbers
drawn depend only on the key, the purpose, the name and the parameters given, never on the order of calls, of
classes or of files. ``tests/data/key_vectors.json`` pins them for ever.
"""

import hashlib
import hmac
import json
import os
import secrets
import stat
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from unlearnable.errors import expected

VERSION: Final = 1
"""Part of every derivation: raised when, and only when, the numbers drawn for a key have to change."""

_HEADER: Final = "unlearnable-key-1"
_BYTES: Final = 32

Parameter = int | float | str
"""A value that may take part in a derivation."""


def _encoded(name: str) -> bytes:
    return unicodedata.normalize("NFC", name).encode("utf-8", "surrogateescape")


class Stream:
    """An endless, repeatable stream of random numbers (the ChaCha20 key stream, RFC 8439), the same on any machine.

    >>> stream = Key(bytes(32)).stream("example")
    >>> stream.uniform(2).round(6).tolist(), stream.integer(10)
    ([0.677586, 0.073543], 7)
    """

    def __init__(self, seed: bytes) -> None:
        """Start the stream of a 32-byte seed."""
        self._cipher = Cipher(ChaCha20(seed, bytes(16)), mode=None).encryptor()

    def bytes(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        return self._cipher.update(bytes(count))

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Return the next ``count`` numbers, float64, uniform on [0, 1) in steps of 2**-53; 8 bytes each."""
        words = np.frombuffer(self.bytes(8 * count), dtype="<u8")
        return (words >> np.uint64(11)) * np.float64(2.0**-53)

    def integer(self, below: int) -> int:
        """Return the next integer, uniform on [0, below); 16 bytes, so that the bias is under 2**-64."""
        return int.from_bytes(self.bytes(16), "little") % below


class Key:
    """256 secret bits.

    >>> key = Key.generate()
    >>> key == Key(key.secret), key
    (True, Key(<secret>))
    """

    def __init__(self, secret: bytes) -> None:
        """Take 32 bytes of secret. Raises InputError for any other length."""
        if len(secret) != _BYTES:
            make = "make one with: unlearnable keygen FILE"
            raise expected(f"a key of {_BYTES} bytes", f"{len(secret)} bytes", make)
        self.secret: Final = bytes(secret)
        self._subkeys: dict[str, bytes] = {}

    @classmethod
    def generate(cls) -> Self:
        """Draw a new key from the operating system."""
        return cls(secrets.token_bytes(_BYTES))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a key file.

        Raises InputError where the file is missing, is not a key file, or can be read by others than its owner.
        """
        path = Path(path)
        make = f"make one with: unlearnable keygen {path}"
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                if not stat.S_ISREG(mode):
                    raise expected("a key file", f"something else at {path}", make)
                content = file.read(1024)
        except FileNotFoundError:
            raise expected("a key file", f"nothing at {path}", make) from None
        except OSError as error:
            raise expected("a key file", f"{path} that cannot be read ({error.strerror})", make) from None
        if os.name == "posix" and mode & 0o077:
            raise expected(
                "a key file that only its owner can read",
                f"mode {stat.S_IMODE(mode):04o} on {path}",
                f"if nobody has seen it, chmod 600 {path}",
            )
        match content.split():
            case [header, digits] if header == _HEADER.encode() and len(digits) == 2 * _BYTES:
                try:
                    return cls(bytes.fromhex(digits.decode("ascii")))
                except ValueError:
                    pass
        raise expected(f"a key file ({_HEADER}, then 64 hexadecimal digits)", f"something else in {path}", make)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a new key file, readable by its owner only. Raises InputError if the file exists."""
        path = Path(path)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise expected(
                "a new file for the key", f"{path} there already", "a key is never overwritten; name another"
            ) from None
        except OSError as error:
            raise expected("a place for the key", f"{error.strerror} at {path}", "name another file") from None
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{_HEADER}\n{self.secret.hex()}\n")
            file.flush()
            os.fsync(file.fileno())

    def derive(self, purpose: str, name: str = "", parameters: Mapping[str, Parameter] | None = None) -> bytes:
        """Derive 32 bytes with HKDF-SHA256, for one purpose, name (of a class, say) and set of parameters.

        Names are compared as Unicode does (NFC), so that a folder copied between systems keeps its streams.
        """
        settings = json.dumps(dict(parameters or {}), sort_keys=True, separators=(",", ":"))
        fields = [_encoded(purpose), _encoded(name), settings.encode()]
        info = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
        return HKDF(SHA256(), _BYTES, salt=f"unlearnable/{VERSION}".encode(), info=info).derive(self.secret)

    def stream(self, purpose: str, name: str = "", parameters: Mapping[str, Parameter] | None = None) -> Stream:
        """Return the stream of numbers for one purpose, name and set of parameters (see :meth:`derive`)."""
        return Stream(self.derive(purpose, name, parameters))

    def rank(self, purpose: str, name: str) -> bytes:
        """Place a name in a secret order: sorting names by their rank shuffles them, whatever order they came in.

        For one purpose and millions of names this is much cheaper than a stream a name.
        """
        subkey = self._subkeys.get(purpose) or self._subkeys.setdefault(purpose, self.derive("rank", purpose))
        return hmac.digest(subkey, _encoded(name), hashlib.sha256)[:16]

    @property
    def check_value(self) -> str:
        """Sixteen hexadecimal digits that tell this key from another and nothing else about it."""
        return self.derive("check").hex()[:16]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and hmac.compare_digest(self.secret, other.secret)

    def __hash__(self) -> int:
        return hash(self.check_value)

    def __repr__(self) -> str:
        return "Key(<secret>)"
