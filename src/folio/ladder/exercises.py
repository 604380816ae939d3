"""What a learner may change in each step; `folio ladder check` tests the result."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Exercise:
    """A change of a step that keeps what it computes, or nearly."""

    step: int
    task: str
    hint: str


EXERCISES = (
    Exercise(
        0,
        "Build the table without nn.Embedding: make one-hot vectors of the token ids, and multiply "
        "them by a matrix.",
        "torch.nn.functional.one_hot(token_ids, V).float() @ self.weight. A table is a matrix "
        "product in which the left side has a single 1.",
    ),
    Exercise(
        1,
        "Leave the mask out: go through the positions in a loop, and give each one the keys and "
        "values up to its own.",
        "For position t: (queries[:, t : t + 1] @ keys[:, : t + 1].transpose(1, 2)), the softmax, "
        "and the mean of values[:, : t + 1]. Join the results with torch.cat.",
    ),
    Exercise(
        2,
        "Compute all heads at once: one matrix for the queries, keys and values of all heads, and "
        "a view of the result as (B, H, T, D).",
        "x.view(B, T, 3, H, D).permute(2, 0, 3, 1, 4) has queries, keys and values as its first "
        "index. At the end, transpose heads and positions back, and reshape to (B, T, C).",
    ),
    Exercise(
        3,
        "Take another nonlinearity in place of the ReLU. Which one learns fastest in 1000 steps?",
        "torch.nn.functional has gelu and silu. Or none: then the layer is a matrix product that "
        "the head could do as well.",
    ),
    Exercise(
        4,
        "Use one block three times, with the same weights. A third of the parameters: how much "
        "worse is it?",
        "nn.Sequential(block, block, block) holds one block. Its gradient is the sum over the "
        "three places.",
    ),
    Exercise(
        5,
        "Divide each sum of the stream by the square root of 2, so that it keeps its size however "
        "deep the model is.",
        "x = (x + self.attention(x)) / 2**0.5, and the same for the feed-forward layer. Then look "
        "at the size of x after each block, with and without it.",
    ),
    Exercise(
        6,
        "Write RMSNorm, and use it in place of LayerNorm: divide by the root mean square, subtract "
        "no mean, add no bias.",
        "x * (x.pow(2).mean(dim=2, keepdim=True) + 1e-5).rsqrt() * self.weight. The source is "
        "https://arxiv.org/abs/1910.07467.",
    ),
)
