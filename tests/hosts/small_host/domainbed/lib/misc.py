"""Seeds."""

import hashlib


def seed_hash(*words):
    return int(hashlib.md5(str(words).encode()).hexdigest(), 16) % (2**31)
