"""Load a trained model, let it write, and ask what it makes of a text.

python examples/02_sample.py        # after 01_train.py
"""

from __future__ import annotations

import folio


def main(run: str | None = None, max_tokens: int = 200) -> list[str]:
    """`run` is a name below runs/ or a path; None takes the newest."""
    model = folio.load(run)
    print(model)

    # One text, the same each time.
    print(model.generate("The ", max_tokens=max_tokens, temperature=0.8, seed=1))

    # Several at once, side by side in a batch.
    texts = model.generate_batch(["The "] * 3, max_tokens=max_tokens, top_p=0.9)
    for number, text in enumerate(texts, 1):
        print(f"--- {number} ---\n{text}")

    # How surprising the held-out text is; `exact` reads each token once.
    for score in model.evaluate(model.validation()):
        print(f"{score.protocol}: {score.nats_per_token:.3f} nats per token")
    return texts


if __name__ == "__main__":
    main()
