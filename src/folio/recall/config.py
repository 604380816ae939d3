"""The settings of folio recall."""

from __future__ import annotations

from dataclasses import dataclass

from folio.errors import UserError


@dataclass(frozen=True, kw_only=True)
class RecallConfig:
    """How recall is measured."""

    samples: int = 75
    """How many texts of 500 characters the model writes."""
    temperature: float = 0.8
    passages: int = 4096
    """Most passages of the training text to read, and as many of new text."""
    length: int = 0
    """Characters in a passage and in a copy. 0 means 50, or 20 if most characters are Chinese or
    Japanese."""
    seed: int = 1
    secrets: tuple[str, ...] = ()
    """Strings that must not come out, wherever they stand."""
    show_secrets: bool = False
    """Whether what looks like a secret is shown unmasked, in the terminal alone."""
    twin: bool = False
    """Whether two models are trained, on one half of the documents each, to see what reading a
    document changes."""
    novel: int = 0
    """Most consecutive letters of the training text in texts that the model writes once more, with
    the guard of `folio sample --novel`, to see what that leaves; 0 leaves it out."""
    seconds: float = 60.0
    """Seconds for each of three parts: writing, reading passages (half of it for either text),
    trying secrets. A large model does less of each in that time, and the report says how much; with
    fewer than ten texts, those that it began count as far as they came."""

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise UserError(f"samples must be 2 or more, to give an error, got {self.samples}.")
        if not 0 < self.temperature < 100:
            raise UserError(f"temperature must be above 0 and below 100, got {self.temperature}.")
        if self.passages < 1:
            raise UserError(f"passages must be 1 or more, got {self.passages}.")
        if self.novel < 0:
            raise UserError(f"novel must be 0 or more letters, got {self.novel}.")
        if self.length != 0 and self.length < 8:
            raise UserError(f"length must be 0 or at least 8 characters, got {self.length}.")
        for name, most in (("samples", 100_000), ("length", 10_000)):
            if (given := getattr(self, name)) > most:
                raise UserError(f"{name} must be at most {most:,}, got {given:,}.")
        if not self.seconds > 0:
            raise UserError(f"seconds must be above 0, got {self.seconds}.")
        if self.seed < 1:
            raise UserError(f"seed must be 1 or more, got {self.seed}.")
