"""Signing: how a reader knows that a version is the publisher's, and not somebody's who can write to the store.

What is signed is a version. Who can write to the store may still make readers serve an older one that was.
"""

import hmac
import os
from collections.abc import Mapping
from hashlib import blake2b

KEY_VARIABLE = "BACKCHANNEL_SIGNING_KEY"


def signing_key(configured: str = "", environment: Mapping[str, str] = os.environ) -> bytes:
    """Return the key that the environment, or else the configuration, names; none is empty."""
    words = environment.get(KEY_VARIABLE) or configured
    return blake2b(words.encode(), digest_size=32).digest() if words else b""


def sign(text: str, key: bytes) -> str:
    """Return the signature: HMAC-SHA256 (RFC 2104) in hexadecimal digits."""
    return hmac.digest(key, text.encode(), "sha256").hex()


def signed(text: str, signature: str | None, key: bytes) -> bool:
    """Whether `signature` is that of `text`."""
    return signature is not None and hmac.compare_digest(sign(text, key), signature)
