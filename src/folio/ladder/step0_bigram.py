"""Step 0: a table. The next token depends on the last one alone.

Row i of the table scores every token as the one after token i. Training turns the rows into
the logarithms of how often each pair occurs, up to a constant that the softmax takes away.

Source: Shannon 1948, section 3, the second-order approximation,
https://doi.org/10.1002/j.1538-7305.1948.tb01338.x

Shapes:  B batch · T positions · V vocabulary
"""

from __future__ import annotations

from torch import Tensor, nn

from folio.ladder.sizes import Sizes


class Bigram(nn.Module):
    """A table of logits, indexed by the last token."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.table = nn.Embedding(sizes.vocab_size, sizes.vocab_size)

    def forward(self, token_ids: Tensor) -> Tensor:
        """(B, T) token ids -> (B, T, V) logits."""
        return self.table(token_ids)


def build(sizes: Sizes) -> nn.Module:
    """Build the model of this step."""
    return Bigram(sizes)
