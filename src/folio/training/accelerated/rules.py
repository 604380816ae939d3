"""The rules of `optimizers.py` for GPUs: fewer and larger operations, with numbers on the device.

AdamW is torch's fused kernel, which reads and writes each number once. Muon stacks all matrices of
one shape, so that one operation computes what a loop over them would. Both keep the state of the
rules that they stand for, and take the learning rate and the number of steps as tensors, so that
neither is baked into a CUDA graph.

Shapes:  N matrices of one shape, (out, in) each · M the smaller side
"""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false
# (torch documents its operations on lists of tensors, but under private names.)

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from folio.fast.written_for import is_as_written
from folio.training import optimizers
from folio.training.accelerated.graph import CudaGraphed
from folio.training.config import OptimizerConfig
from folio.training.gradients import gradient_of
from folio.training.groups import Members
from folio.training.optimizers import (
    EPSILON,
    LONG_POLYNOMIALS,
    SQUARE_POLYNOMIALS,
    AdamW,
    Muon,
    Optimizer,
    Rule,
)


class GraphedRule(Rule):
    """A rule that moves by an accelerated function, captured as a CUDA graph."""

    def __init__(self, rule: Rule, move: Callable[[Any, Tensor, Tensor], None]) -> None:
        """Stand for a rule, whose state is kept.

        Args:
            rule: the rule as it is written.
            move: takes the rule, and scalars on the device: the factor on the peak learning rate,
                and the number of steps, this one included.
        """
        super().__init__(Members(rule.parameters, rule.heights, rule.weight_decay), rule.config)
        self.state = rule.state
        self.numbers = torch.zeros(2, device=rule.parameters[0].device)

        def by_numbers(numbers: Tensor) -> None:
            move(rule, numbers[0], numbers[1])

        self.move = CudaGraphed(by_numbers)

    def step(self, lr_scale: float) -> None:
        """Update the parameters as the rule does."""
        for steps in self.state.get("steps", []):  # on the processor
            steps += 1
            self.numbers[1].fill_(steps.item())
        self.numbers[0].fill_(lr_scale)  # waits for nothing: an argument of a kernel
        self.move(self.numbers)


def fused_adamw(rule: AdamW, lr_scale: Tensor, steps: Tensor) -> None:
    """Update as AdamW does, in one pass."""
    config, n = rule.config, len(rule.parameters)
    torch._fused_adamw_(
        list(rule.parameters),
        [gradient_of(w) for w in rule.parameters],
        rule.mean,
        rule.mean_square,
        [],
        [steps] * n,
        lr=lr_scale * config.learning_rate,
        beta1=config.beta1,
        beta2=config.beta2,
        weight_decay=rule.weight_decay,
        eps=config.epsilon,
        amsgrad=False,
        maximize=False,
    )


def stacked_muon(rule: Muon, lr_scale: Tensor, _: Tensor) -> None:
    """Update as Muon does, all matrices of one shape at once."""
    config, gradients = rule.config, [gradient_of(w) for w in rule.parameters]
    torch._foreach_lerp_(rule.momentum, gradients, 1 - config.matrix_momentum)
    ahead = torch._foreach_lerp(gradients, rule.momentum, config.matrix_momentum)
    stacks: dict[torch.Size, list[tuple[Tensor, ...]]] = defaultdict(list)
    for heights, *of_one in zip(rule.heights, rule.parameters, ahead, rule.mean_square):
        for w, o, v in zip(*(torch.split(x.detach(), list(heights)) for x in of_one)):
            stacks[w.shape].append((w, o, v))
    for same in stacks.values():
        w, o, v = map(list, zip(*same))
        _move(w, orthogonalize_stack(torch.stack(o)), v, lr_scale, config)


def _move(
    matrices: list[Tensor],
    o: Tensor,
    mean_squares: list[Tensor],
    lr_scale: Tensor,
    config: OptimizerConfig,
) -> None:
    """Update N matrices (out, in) by (N, out, in), as `Muon._move` does one."""
    lr, w = lr_scale * config.matrix_learning_rate, torch.stack(matrices)
    if config.matrix_beta2 < 1:
        v = torch.stack(mean_squares)  # (N, out, 1)
        v.lerp_(o.square().mean(2, keepdim=True), 1 - config.matrix_beta2)
        torch._foreach_copy_(mean_squares, v.unbind())
        even = o / (v.sqrt() + EPSILON)
        o = even * (_square_sum(o) / (_square_sum(even) + EPSILON**2)).sqrt()
    decayed = w * (lr * config.matrix_weight_decay)
    if config.cautious_decay:
        decayed *= o * w > 0
    rows, columns = matrices[0].shape
    change = decayed.add_(o * (lr * max(1.0, rows / columns) ** 0.5))
    torch._foreach_sub_(matrices, change.unbind())


def orthogonalize_stack(x: Tensor) -> Tensor:
    """Compute `optimizers.orthogonalize` of (N, out, in) matrices, with N matmuls at once."""
    rows, columns = x.shape[1:]
    x = x / x.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    for i, coefficients in enumerate(SQUARE_POLYNOMIALS if rows == columns else LONG_POLYNOMIALS):
        s = x @ x.mT if rows <= columns else x.mT @ x  # (N, M, M)
        if i == 0:  # as `largest_singular_value`
            norm = _square_sum(s @ s).sqrt().clamp(min=EPSILON) ** 0.25
            x, s = x / norm, s / norm.square()
        factor = _horner(s, coefficients)
        x = factor @ x if rows <= columns else x @ factor
    return x


def _horner(s: Tensor, coefficients: Sequence[float]) -> Tensor:
    """(N, M, M) -> a + b s + c s^2 and so on."""
    *others, last = coefficients
    factor = s * last
    for i, c in enumerate(reversed(others)):
        factor = factor @ s if i else factor
        factor.diagonal(dim1=1, dim2=2).add_(c)
    return factor


def _square_sum(x: Tensor) -> Tensor:
    """(N, out, in) -> (N, 1, 1), the sum of the squares of each matrix."""
    return x.square().sum((1, 2), keepdim=True)


FASTER: dict[type[Rule], Callable[[Any, Tensor, Tensor], None]] = {
    AdamW: fused_adamw,
    Muon: stacked_muon,
}
"""Rule -> the same for GPUs."""


def accelerate_rules(optimizer: Optimizer) -> None:
    """Let an optimizer move by accelerated rules; its state stays where it is.

    A rule is replaced only if its class is exactly one of FASTER, and nobody edited its file.
    """
    if is_as_written(optimizers):
        optimizer.rules = [
            GraphedRule(rule, FASTER[type(rule)]) if type(rule) in FASTER else rule
            for rule in optimizer.rules
        ]
