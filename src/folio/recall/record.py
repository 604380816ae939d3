"""The record of what was found, recall.json: numbers and places, but no text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from folio.evaluation.shares import Share
from folio.recall.copies import Copies
from folio.recall.measure import Recall
from folio.recall.words import verdict_of


def record_of(recall: Recall) -> dict[str, Any]:
    """The content of recall.json: numbers and places, but no text."""
    heart, verdict = recall.heart, verdict_of(recall)
    of_text = "text" if recall.text else "training"
    copies = {
        "model": recall.model,
        "guarded": recall.guarded,
        "author": recall.author,
        "held_out": recall.held_out,
    }
    return {
        "run": recall.run,
        "secrets": _secrets(recall),
        "checkpoint": recall.checkpoint,
        "verdict": verdict.kind,
        "sentence": verdict.sentence,
        "advice": verdict.advice,
        "text": recall.text or None,
        "not_looked_in": recall.missing or None,
        "protocol": {
            "length": recall.length,
            "samples": recall.config.samples,
            "temperature": recall.config.temperature,
            "seed": recall.config.seed,
            "novel": recall.config.novel,
            "prefix_characters": round(heart.prefix_characters, 1),
            "suffix_characters": round(heart.suffix_characters, 1),
        },
        f"{of_text}_characters": recall.training_characters,
        "times_read": None if recall.text else round(recall.times_read, 2),
        "passages": {
            name: {tries: _share(share) for tries, share in shares.items()}
            for name, shares in (
                (of_text, heart.text),
                ("repeated", heart.repeated),
                ("patterns", heart.patterns),
                ("new", heart.new),
            )
        },
        "median_bits": {
            of_text: _number(heart.median_bits),
            "new": _number(heart.median_new_bits),
        },
        "told_apart": heart.told_apart,
        "twin": _twin(recall),
        "by_repeats": [
            {"stands": name, "passages": n, "median_bits": bits, "at_once": share}
            for name, n, bits, share in heart.by_repeats
        ],
        "by_heart": [
            {
                "bits": round(known.bits, 2),
                "at_once": known.at_once,
                "stands": known.repeats,
                "place": str(recall.sources.locate(known.place)),
            }
            for known in heart.worst
        ],
        "copies": {name: of and _copies(of) for name, of in copies.items()},
        "sources_known": recall.sources.known,
    }


def _secrets(recall: Recall) -> dict[str, Any]:
    return {
        "different": recall.secrets.n_different,
        "kinds": recall.secrets.kinds,
        "absent": len(recall.secrets.absent),
        "canaries": [
            {"stands": of.times, "bits": of.bits, "exposures": of.exposures}
            for of in recall.canaries
        ],
        "coming_out": [
            {
                "kind": secret.kind,
                "sha256_begins": secret.digest,
                "bits": round(secret.bits, 2),
                "exposure": secret.exposure and round(secret.exposure, 2),
                "stands": secret.stands,
                "written": secret.written,
                "place": secret.place,
            }
            for secret in recall.secrets.coming_out
        ],
    }


def _copies(of: Copies) -> dict[str, Any]:
    return {
        "copied": _share(of.copied),
        "with_patterns": _share(of.with_patterns),
        "nearly": _share(of.nearly),
        "longest": of.longest,
        "longest_nearly": of.longest_nearly,
        "mean_match": round(of.mean_match, 2),
        "seen": [round(share, 5) for share in of.seen],
        "seen_errors": [round(error, 5) for error in of.seen_errors],
    }


def _twin(recall: Recall) -> dict[str, Any] | None:
    if (twin := recall.twin) is None:
        return None
    return {
        "steps": list(twin.steps),
        "gain_bits": _number(twin.gain.bits),
        "error": _number(twin.gain.error),
        "by_reading": _share(twin.by_reading),
        "anyway": _share(twin.anyway),
        "documents": [
            {
                "document": recall.sources.name(document),
                "passages": gain.passages,
                "gain_bits": _number(gain.bits),
                "error": _number(gain.error),
            }
            for document, gain in twin.documents
        ],
    }


def _share(share: Share) -> dict[str, Any]:
    return {"count": share.count, "of": share.of, "error": _number(share.error)}


def _number(value: float) -> float | None:
    return None if not math.isfinite(value) else round(float(np.float64(value)), 6)
