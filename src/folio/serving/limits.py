"""Limits on what one client can take from a server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a server; tests use others."""

    rows: int = 32
    """Texts that are worked on at once, of all models."""

    waiting: int = 128
    """Texts behind them; whoever comes then is told to come again."""

    prompts: int = 64
    """Texts that one request may ask for."""

    max_tokens: int = 4096
    """Most tokens of one text."""

    look_characters: int = 16_000
    """Most characters of a text to look at."""

    body_bytes: int = 256 * 1024
    """Largest body of a request."""

    body_seconds: float = 10.0
    """How long a body may take to arrive."""

    idle_seconds: float = 10.0
    """Longest time from the opening of a connection, or the end of an answer, to the next complete
    head of a request."""

    stalled_seconds: float = 30.0
    """How long an answer waits for a client that does not read."""

    connections: int = 1024
    """Most connections at once; beyond, the one that has been idle longest is closed."""

    stopping_seconds: float = 1.5
    """How long answers may take to end when the server stops."""
