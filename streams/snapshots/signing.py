"""Signing: how a reader knows that a version was written by the publisher, not just by someone with write access.

Versions are signed; the head is not. Someone with write access can still make readers serve an older signed version.
"""

import hmac
import os
from collections.abc import Mapping
from hashlib import blake2b

KEY_VARIABLE = "BACKCHANNEL_SIGNING_KEY"
OTHER_KEY_VARIABLE = "BACKCHANNEL_OTHER_SIGNING_KEY"
"""A second key that readers accept. To rotate keys, first give readers the new one here, then give it to the
publisher."""


def signing_key(configured: str = "", environment: Mapping[str, str] = os.environ) -> bytes:
    """Return the key from the environment, or else from the configuration; empty if neither has one."""
    words = environment.get(KEY_VARIABLE) or configured
    return blake2b(words.encode(), digest_size=32).digest() if words else b""


def accepted_keys(configured: str = "", environment: Mapping[str, str] = os.environ) -> tuple[bytes, ...]:
    """Return the accepted keys, one of which must have signed a version; a single empty key if signatures are not
    checked.
    """
    key, other = signing_key(configured, environment), signing_key(environment.get(OTHER_KEY_VARIABLE, ""), {})
    return tuple(one for one in (key, other) if one) or (b"",)


def sign(text: str, key: bytes) -> str:
    """Return the signature: HMAC-SHA256 (RFC 2104) in hexadecimal digits."""
    return hmac.digest(key, text.encode(), "sha256").hex()


def signed(text: str, signature: str | None, key: bytes) -> bool:
    """Return whether `signature` is the signature of `text`."""
    return signature is not None and hmac.compare_digest(sign(text, key), signature)
