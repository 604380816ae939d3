"""Dynamic evaluation: the model learns from the text that it is tested on, as it reads it.

Each window is scored before a gradient step on it is taken, so that every token is predicted from
what stands before it, as a compressor does. A step is divided by the root of the mean square of the
training text's gradients (Krause et al. 2018, https://arxiv.org/abs/1709.07432, and 2019 for
transformers, https://arxiv.org/abs/1904.08378).

No rate suits every model: a step that helps one that has read its text once throws off one that
knows it by heart; and the training text cannot say which is which, since a model that knows it has
nothing to gain there. So copies of the model read side by side, each at a rate of its own, and a
mixture of them learns whom to trust from what was read. Nothing is chosen beforehand.

The number is called `adaptive`, and is never to be mixed with the exact one, which does not learn
from the text.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from folio.device import one_thread
from folio.evaluation.score import Window, sampled_windows, strided_windows
from folio.evaluation.token_bits import log_odds, n_bits
from folio.model.gpt import GPT
from folio.tokenizers.base import TokenIds
from folio.workers import READ_AGAIN, ProcessPool, forks, shared_buffer

RATES = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
"""Sizes of a step, as a share of the usual size of a gradient; one copy learns at each, beside one
that does not learn."""
HALVED_AT = (1 / 32, 1 / 8)
"""Shares of the text, after which the worse half of the copies that learn leaves: two read most of
it, so that eight cost little more than two would."""
TOLD_AT = tuple(eighth / 8 for eighth in range(2, 8))
"""Shares of the text, after which it is told how much was read."""
SHORTEST = 128
"""Tokens of a window, unless the model sees fewer. Otherwise it is half a context: it is read twice
as often, and learning sooner is worth more than what stands farther back."""
COPIES_FORGET = 0.002
"""Of the mixture of copies: the best rate changes slowly, if at all."""
STATISTICS_TARGETS = 16_384
"""Of the training text, for the size of its gradients."""
PULL = 0.002
"""Share of the way back to the trained weights that each step goes."""

Read = tuple[NDArray[np.float64], NDArray[np.float32]]
"""(n,) nats of some targets, and (n, bits) log-odds that each of their bits is 1."""
Workers = Callable[[Sequence[int], range], list[Read]]
"""Have some copies read some windows: what each of the copies says of the targets."""


@dataclass(frozen=True)
class Reading:
    """What was made of a text of N tokens."""

    nats: NDArray[np.float64]
    """(N,) of each token by the mixture; nan for the first, which nothing predicts."""
    of_each: NDArray[np.float64]
    """(K, N) by each copy, the one that does not learn first; nan from where it has left on."""
    odds: NDArray[np.float32]
    """(K, N, bits) that each bit of a token is 1, as log-odds by each copy; nan as in `of_each`."""


class Adaptation:
    """How a model moves while it reads."""

    def __init__(self, model: GPT, training: TokenIds, context_length: int) -> None:
        """Measure the size of the gradients on the training text.

        Args:
            model: trained; it is never changed.
            training: (N,) token ids that it learned from.
            context_length: of its windows.
        """
        self.model, self.context_length = _learning_copy(model), context_length
        self.roots = _roots(self.model, training, context_length)

    @one_thread()
    def read(
        self,
        tokens: TokenIds,
        rates: Sequence[float] = RATES,
        world_size: int = 1,
        tell: Callable[[str], None] = lambda line: None,
    ) -> Reading:
        """Read a text with gradient steps in between.

        Args:
            tokens: (N,) at least two.
            rates: ascending, above 0.
            world_size: processes that share the copies; the numbers do not depend on it.
            tell: hears which copies go on, and how much was read.
        """
        length = max(self.context_length // 2, min(self.context_length, SHORTEST))
        windows = strided_windows(len(tokens), length)
        copies = [_Copy(self.model, rate, self.roots) for rate in (0.0, *rates)]
        of_each = np.full((len(copies), len(tokens)), np.nan)
        odds = np.full((*of_each.shape, n_bits(self.model.config.vocab_size)), np.nan, np.float32)
        learning, place = list(range(1, len(copies))), 1
        begin, n = 0, len(windows)
        halved_at = {math.ceil(share * n) for share in HALVED_AT} - {n}
        ends = sorted({*halved_at, *(math.ceil(share * n) for share in TOLD_AT), n})
        with _workers(copies, np.asarray(tokens), windows, world_size) as read:
            for end in ends:
                going = [0, *learning]
                answers = read(going, range(begin, end))
                now = slice(place, place + len(answers[0][0]))
                for i, (nats, said) in zip(going, answers, strict=True):
                    of_each[i, now], odds[i, now] = nats, said
                begin, place = end, now.stop
                so_far = f"{place:,} of {len(tokens):,} tokens"
                if end in halved_at:
                    learning.sort(key=lambda i: float(of_each[i, 1:place].sum()))
                    learning = learning[: (len(learning) + 1) // 2]
                    left = ", ".join(f"{copies[i].rate:g}" for i in sorted(learning))
                    tell(f"{so_far}; going on at rates {left}")
                elif end < n:
                    tell(so_far)
        nats = mix([each[1:] for each in of_each], COPIES_FORGET)
        return Reading(np.append(np.nan, nats), of_each, odds)


class _Copy:
    """A model that learns from what it reads, in memory that forked processes share."""

    def __init__(self, model: nn.Module, rate: float, roots: Sequence[Tensor]) -> None:
        self.model, self.rate, self.roots = copy.deepcopy(model), rate, roots
        self.trained = [parameter.detach() for parameter in model.parameters()]
        self.parameters = list(self.model.parameters())
        for parameter in self.parameters:
            shared = shared_buffer(parameter.numel(), parameter.dtype).view(parameter.shape)
            parameter.data = shared.copy_(parameter.data)

    def read(self, tokens: TokenIds, windows: Sequence[Window]) -> Read:
        """Say what is expected of the targets of some windows, of each before learning from it. The
        nats are infinite, and the odds even, where the steps were too large for the model.
        """
        found, odds = list[NDArray[np.float64]](), list[NDArray[np.float32]]()
        with torch.set_grad_enabled(self.rate > 0):
            for window in windows:
                logits, targets = _window(self.model, tokens, window)
                nats = F.cross_entropy(logits, targets, reduction="none")
                found.append(nats.detach().double().numpy())
                odds.append(log_odds(logits.detach(), targets).numpy())
                if self.rate:
                    self._learn(nats.mean())
        nats = np.nan_to_num(np.concatenate(found), nan=np.inf, posinf=np.inf)
        return nats, np.concatenate(odds)

    @torch.no_grad()
    def _learn(self, loss: Tensor) -> None:
        gradients = torch.autograd.grad(loss, self.parameters)
        for parameter, gradient, root, trained in zip(
            self.parameters, gradients, self.roots, self.trained
        ):
            parameter.addcdiv_(gradient, root, value=-self.rate)
            parameter.lerp_(trained, PULL)


@contextmanager
def _workers(
    copies: Sequence[_Copy], tokens: TokenIds, windows: Sequence[Window], world_size: int
) -> Iterator[Workers]:
    """Have processes at hand that read; any of them may go on with any copy."""

    def read(rank: int, message: tuple[Sequence[int], range]) -> list[Read]:
        numbers, places = message
        return [copies[i].read(tokens, [windows[place] for place in places]) for i in numbers]

    n = min(world_size, len(copies)) if forks() else 1

    def share_out(numbers: Sequence[int], places: range) -> list[Read]:
        hands = [numbers[rank::n] for rank in range(n)]
        answers = pool.run(0, [(hand, places) for hand in hands])
        found = {
            i: said for hand, of in zip(hands, answers) for i, said in zip(hand, of, strict=True)
        }
        return [found[i] for i in numbers]

    with ProcessPool(n, [[read]], lambda: None, READ_AGAIN) as pool:
        yield share_out


def mix(nlls: Sequence[NDArray[np.float64]], forgets: float = 0.02) -> NDArray[np.float64]:
    """(N,) the cross-entropy of a mixture whose shares are learned from what was read, in nats.

    Each predictor's share is its own before, times how likely it made the last symbol, and a little
    of an even one (fixed share, Herbster & Warmuth 1998, https://doi.org/10.1023/A:1007424614876).

    Args:
        nlls: nats of each symbol, by each predictor; (N,) each, and nan from where a predictor
            has left on, whose share the others take.
        forgets: how much of the even share comes back with each symbol.

    >>> one, other = np.array([0.1, 0.1, 3.0]), np.array([3.0, 3.0, 0.1])
    >>> bool(mix([one, other]).sum() < min(one.sum(), other.sum()) + np.log(2))
    True
    """
    chances = np.exp(-np.stack(nlls, axis=1))  # (N, K)
    present = ~np.isnan(chances)
    even = present / present.sum(axis=1, keepdims=True)
    shares = np.full(chances.shape[1], 1 / chances.shape[1])
    nats = np.zeros(len(chances))
    for i, row in enumerate(np.nan_to_num(chances)):
        shares = shares * present[i]
        shares /= shares.sum()
        joint = shares * row
        p = joint.sum()
        nats[i] = -math.log(p)
        shares = (1 - forgets) * joint / p + forgets * even[i]
    return nats


def _learning_copy(model: GPT) -> GPT:
    return copy.deepcopy(model).cpu().float().eval().requires_grad_(True)


def _window(model: nn.Module, tokens: TokenIds, window: Window) -> tuple[Tensor, Tensor]:
    """(n, V) logits at the targets of a window that count, and (n,) the targets."""
    span = tokens[window.start : window.start + window.length + 1]
    ids = torch.from_numpy(span.astype(np.int64))
    return model(ids[None, :-1])[0, window.skip :].float(), ids[window.skip + 1 :]


@one_thread()
def _roots(model: nn.Module, training: TokenIds, context_length: int) -> list[Tensor]:
    """The root of the mean square of each weight's gradient, and its mean over all weights added,
    so that no weight runs away whose gradient is hardly ever more than 0.
    """
    parameters = list(model.parameters())
    squares = [torch.zeros_like(parameter) for parameter in parameters]
    windows = sampled_windows(len(training), context_length, STATISTICS_TARGETS)
    for window in windows:
        loss = F.cross_entropy(*_window(model, training, window))
        for square, gradient in zip(squares, torch.autograd.grad(loss, parameters)):
            square.add_(gradient.square())
    n_weights = sum(square.numel() for square in squares)
    usual = math.sqrt(sum(float(s.sum()) for s in squares) / len(windows) / n_weights)
    return [(square / len(windows)).sqrt() + usual for square in squares]
