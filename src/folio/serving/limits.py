"""How much of a server one client can take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of a server; a test has others."""

    rows: int = 32
    """Texts that are worked on at once, of all models."""

    waiting: int = 128
    """Texts behind them; whoever comes then is told to come again."""

    prompts: int = 64
    """Texts that one request may ask for."""

    max_tokens: int = 4096
    """Of one text."""

    look_characters: int = 16_000
    """Of a text that is looked at."""

    body_bytes: int = 256 * 1024
    """Of a request."""

    body_seconds: float = 10.0
    """For a body to arrive."""

    idle_seconds: float = 10.0
    """From the beginning of a connection, or the end of an answer, to the next whole head of a
    request."""

    stalled_seconds: float = 30.0
    """That an answer may wait for a client that does not read."""

    connections: int = 1024
    """At once; of more, the one that asked for nothing for the longest time is closed."""

    stopping_seconds: float = 1.5
    """For answers to end, when the server is told to."""
