"""Seeds of random draws, each a function of what the draw is for."""

import hashlib


def seed_of(*key: object) -> int:
    """A seed that is a function of the key alone, from 0 to 2⁶³ − 1."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8]) >> 1
