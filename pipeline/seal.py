"""Sealing: what a source's URL holds in secret lies closed in every record until ingest opens it.

A presigned signature or a token reads a customer's file for whoever has it, and records and histories are read by
many. So the doorman's side closes the URL with a key, the workbench opens it to fetch, and the commit that settles
ingest erases it. A sealed text names its key, so that keys can be changed while some still wait, and belongs to one
asset: under another it does not open.

The keys are a setting. Without one the fleet has a key of its own, made once, in the private area of its storage: who
may read that area (backups, the owner of the bucket) can open what is sealed, but who reads Redis alone cannot.

    1.<name of the key>.<nonce and AES-256-GCM ciphertext, base64url>
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from pipeline import keys
from pipeline.errors import PipelineError
from pipeline.ports import ObjectNotFound, PreconditionFailed, Storage

KEY_BYTES = 32
_FORM = "1"
_NONCE_BYTES = 12


@dataclass(frozen=True)
class Key:
    """A secret of 32 bytes. Its name tells nothing of it."""

    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, text: str) -> Key:
        """From base64 (`openssl rand -base64 32`). Raises `ValueError`, which shows nothing of the text."""
        try:
            secret = base64.b64decode(text.strip().translate(_URL_SAFE), validate=True)
        except (binascii.Error, ValueError):
            secret = b""
        if len(secret) != KEY_BYTES:
            raise ValueError(f"a key is {KEY_BYTES} random bytes as base64: make one by `openssl rand -base64 32`")
        return cls(secret)

    @classmethod
    def new(cls) -> Key:
        return cls(secrets.token_bytes(KEY_BYTES))

    @property
    def text(self) -> str:
        return base64.b64encode(self.secret).decode()

    @property
    def name(self) -> str:
        return hashlib.sha256(b"reelway seal key " + self.secret).hexdigest()[:8]


_URL_SAFE = str.maketrans("-_", "+/")


def keys_of(text: str) -> tuple[Key, ...]:
    """The keys of a setting, comma-separated. Raises `ValueError`."""
    return tuple(Key.of(word) for word in text.split(",") if word.strip())


class Seal:
    """Closes with the first of `own`, opens with any; without one, with the key that lies in `storage`.

    Nothing is read or made before the first text is closed or opened. Safe for threads. With neither, it has a key that
    nobody else knows.
    """

    def __init__(self, own: Sequence[Key] = (), storage: Storage | None = None) -> None:
        self.own = tuple(own) if own or storage is not None else (Key.new(),)
        self._storage = storage
        self._stored: Key | None = None

    def close(self, text: str, asset: str) -> str:
        """The text, sealed for this asset. Raises `source_seal_broken` and what the storage raises."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key = self.own[0] if self.own else self._stored or self._kept_or_made()
        nonce = secrets.token_bytes(_NONCE_BYTES)
        closed = nonce + AESGCM(key.secret).encrypt(nonce, text.encode(), _purpose(asset))
        return f"{_FORM}.{key.name}.{base64.urlsafe_b64encode(closed).decode()}"

    def open(self, sealed: str, asset: str) -> str:
        """What was sealed for this asset. Raises `source_seal_broken` and what the storage raises."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        form, _, rest = sealed.partition(".")
        name, _, body = rest.partition(".")
        if form != _FORM:
            raise _broken(asset, "it has a form that is not known here")
        key = self._named(name)
        if key is None:
            raise _broken(asset, f"no key here has the name {name}")
        try:
            closed = base64.b64decode(body.translate(_URL_SAFE), validate=True)
            nonce, ciphertext = closed[:_NONCE_BYTES], closed[_NONCE_BYTES:]
            return AESGCM(key.secret).decrypt(nonce, ciphertext, _purpose(asset)).decode()
        except (InvalidTag, ValueError):
            raise _broken(asset, "it was changed, or sealed for another asset") from None

    def _named(self, name: str) -> Key | None:
        """The key of this name; the stored one is looked for again, as another one may have been made meanwhile."""
        for key in (*self.own, self._stored):
            if key is not None and key.name == name:
                return key
        kept = self._kept()
        return kept if kept is not None and kept.name == name else None

    def _kept(self) -> Key | None:
        """The key that lies in the storage."""
        if self._storage is None:
            return None
        try:
            kept = Key.of(self._storage.get(keys.SEAL_KEY).decode("ascii", "replace"))
        except ObjectNotFound:
            return None
        except ValueError:
            raise PipelineError("source_seal_broken", asset="-", reason=f"{keys.SEAL_KEY} holds no key") from None
        self._stored = kept
        return kept

    def _kept_or_made(self) -> Key:
        """… which is made where there is none yet: of many that make one at once, the first one's is everybody's."""
        assert self._storage is not None, "a seal without a storage has keys of its own"
        kept = self._kept()
        if kept is None:
            with suppress(PreconditionFailed):
                self._storage.put(keys.SEAL_KEY, Key.new().text.encode(), absent=True)
            kept = self._kept()
        if kept is None:
            raise PipelineError("storage_unavailable", reason=f"{keys.SEAL_KEY} was written and is not there")
        return kept


def _purpose(asset: str) -> bytes:
    return f"reelway source of {asset}".encode()


def _broken(asset: str, reason: str) -> PipelineError:
    return PipelineError("source_seal_broken", asset=asset, reason=reason)
