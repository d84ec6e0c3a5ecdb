"""Tokens: made of 256 random bits, shown once, kept as a SHA-256."""

from __future__ import annotations

import hashlib
import hmac
import secrets

PREFIX = "hlt_"
SCOPES = ("write", "read", "operate")


def make() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """What is stored. A plain hash will do: nobody guesses 256 bits, and ingest checks two thousand a second."""
    return hashlib.sha256(token.encode()).hexdigest()


def matches(token: str, stored: str) -> bool:
    return hmac.compare_digest(digest(token), stored)
