"""Seeds of random draws, each a function of the purpose of the draw."""

import hashlib


def seed_of(*key: object) -> int:
    """A seed from 0 to 2⁶³ − 1 that depends only on the key."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8]) >> 1
