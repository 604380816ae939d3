"""AdamW, SGD and Muon, written out: first the formula, then the same in code.

A rule updates the parameters of one group, and `Optimizer` assigns a rule to each group of a model.
A `Rule` that is added to the table OPTIMIZERS can be named in a recipe. `parallel/updates.py` has
the same rules for weights that several processes share; a test over the table holds the two
together.

Shapes:  (out, in) a matrix of weights, of which a row makes one neuron
"""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false
# (torch documents its operations on lists of tensors, but under private names.)

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from folio.training import config as settings
from folio.training.config import OptimizerConfig
from folio.training.gradients import gradient_of, total_norm
from folio.training.groups import GROUPS, Group, Members, matrix_heights, parameter_groups
from folio.training.low_rank import corrected
from folio.training.state import require_same_tensors

SQUARE_POLYNOMIALS = (
    (14.2503, -132.8430, 423.7024, -522.7571, 218.4332),
    (5.5797, -11.7350, 9.0462, -2.7405, 0.2829),
)
"""Coefficients of x, x^3, x^5 and so on, one polynomial after the other. Each maps the result of
the one before it as near to 1 as possible, at first from 0.005 to 1 (the Polar Express,
https://arxiv.org/abs/2505.16932; with 2 and 6 % to spare for rounding). Together they give 0.4 to
1.6, which is even enough; what counts is how small a singular value they still raise."""

LONG_POLYNOMIALS = (
    (7.5598, -20.8383, 14.7170),
    (3.1709, -2.2925, 0.4586),
)
"""The same from 0.02 to 1, which gives 0.5 to 1.5: if a matrix is longer than wide, few singular
values are small."""

EPSILON = 1e-8
"""Keeps neurons without a gradient unchanged."""


class Rule:
    """Updates the parameters of one group by their gradients."""

    groups: ClassVar[Sequence[Group]] = GROUPS
    """The groups that the rule is meant for; AdamW updates the others."""

    def __init__(self, members: Members, config: OptimizerConfig) -> None:
        self.parameters, self.heights, self.weight_decay = members
        self.config = config
        self.state: dict[str, list[Tensor]] = {}
        """State that is kept from step to step: one tensor per parameter, or one for all."""

    def step(self, lr_scale: float) -> None:
        """Update the parameters in place, at `lr_scale` times the peak learning rate."""


class AdamW(Rule):
    """Steps whose size hardly depends on that of the gradient, with decoupled weight decay.

        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2
        w <- w - lr decay w - lr (m / (1 - beta1^n)) / (sqrt(v / (1 - beta2^n)) + epsilon)

    Source: Loshchilov and Hutter 2017, https://arxiv.org/abs/1711.05101.
    """

    def __init__(self, members: Members, config: OptimizerConfig) -> None:
        super().__init__(members, config)
        self.steps = torch.zeros(())
        self.mean = [torch.zeros_like(w) for w in self.parameters]
        self.mean_square = [torch.zeros_like(w) for w in self.parameters]
        self.state = {"steps": [self.steps], "mean": self.mean, "mean_square": self.mean_square}

    def step(self, lr_scale: float) -> None:
        """Update each parameter."""
        beta1, beta2, epsilon = self.config.beta1, self.config.beta2, self.config.epsilon
        lr = lr_scale * self.config.learning_rate
        self.steps += 1
        n = self.steps.item()
        scale = (1 - beta2**n) ** 0.5  # of numerator and denominator, which saves a pass
        w: list[Tensor] = [*self.parameters]
        m, v, g = self.mean, self.mean_square, [gradient_of(parameter) for parameter in w]
        # Most tensors are small, so one call for all of them saves more than it computes.
        torch._foreach_lerp_(m, g, 1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, g, g, 1 - beta2)
        root = torch._foreach_sqrt(v)
        torch._foreach_add_(root, scale * epsilon)
        if self.weight_decay:
            torch._foreach_mul_(w, 1 - lr * self.weight_decay)
        torch._foreach_addcdiv_(w, m, root, -lr * scale / (1 - beta1**n))


class SGD(Rule):
    """Steps against the gradient, with momentum.

        u <- momentum u + g + decay w
        w <- w - lr u

    Source: Sutskever et al. 2013, https://proceedings.mlr.press/v28/sutskever13.html.
    """

    def __init__(self, members: Members, config: OptimizerConfig) -> None:
        super().__init__(members, config)
        if config.momentum:
            self.state["velocity"] = [torch.zeros_like(w) for w in self.parameters]

    def step(self, lr_scale: float) -> None:
        """Update each parameter; the decay passes through the momentum, as in the textbook."""
        for i, w in enumerate(self.parameters):
            update = gradient_of(w) + self.weight_decay * w
            if self.config.momentum:
                update = self.state["velocity"][i].mul_(self.config.momentum).add_(update)
            w -= lr_scale * self.config.learning_rate * update


class Muon(Rule):
    """Orthogonalized momentum: moves a matrix equally far in all directions.

        m <- momentum m + (1 - momentum) g
        o <- orthogonalize(momentum m + (1 - momentum) g)        as Nesterov looks at m
        v <- beta2 v + (1 - beta2) mean(o^2) of each row         how far each neuron moved lately
        o <- o / sqrt(v), times what gives it the norm it had
        w <- w - lr decay w where that shrinks w as o does - lr sqrt(max(1, out / in)) o

    So directions with small gradients move as far as those with large ones, all neurons move about
    equally (NorMuon), decay spares the weights that the update makes larger, and a tall matrix
    changes its output as much as a wide one.

    Sources: Jordan 2024, https://kellerjordan.github.io/posts/muon; Li et al. 2025,
    https://arxiv.org/abs/2510.05491; Chen et al. 2025, https://arxiv.org/abs/2510.12402.
    """

    groups = ("hidden",)

    def __init__(self, members: Members, config: OptimizerConfig) -> None:
        super().__init__(members, config)
        self.momentum = [torch.zeros_like(w) for w in self.parameters]
        self.mean_square = [torch.zeros_like(w[:, :1]) for w in self.parameters]
        self.state = {"momentum": self.momentum, "mean_square": self.mean_square}

    def step(self, lr_scale: float) -> None:
        """Update each matrix."""
        lr = lr_scale * self.config.matrix_learning_rate
        keep = self.config.matrix_momentum
        for w, heights, m, v in zip(self.parameters, self.heights, self.momentum, self.mean_square):
            g = gradient_of(w)
            m.lerp_(g, 1 - keep)
            ahead = g.lerp(m, keep)
            split = (torch.split(x, list(heights)) for x in (w, ahead, v))
            for matrix, u, mean_square in zip(*split):
                self._move(matrix, orthogonalize(u), mean_square, lr)

    def _move(self, w: Tensor, o: Tensor, v: Tensor, lr: float) -> None:
        """Update one matrix: (out, in), (out, in) and (out, 1)."""
        if self.config.matrix_beta2 < 1:
            v.lerp_(o.square().mean(1, keepdim=True), 1 - self.config.matrix_beta2)
            even = o / (v.sqrt() + EPSILON)
            o = even * (o.square().sum() / (even.square().sum() + EPSILON**2)).sqrt()
        decayed = lr * self.config.matrix_weight_decay * w
        if self.config.cautious_decay:
            decayed *= o * w > 0
        rows, columns = w.shape
        w -= decayed + lr * max(1.0, rows / columns) ** 0.5 * o


def orthogonalize(x: Tensor) -> Tensor:
    """Bring the singular values of a matrix to about 1, with matmuls alone.

    A polynomial of x is x times one of its gram matrix s = x x^T, or x^T x if that is smaller.

    Args:
        x: (out, in) float32, of any scale.

    Returns:
        (out, in) with the same singular vectors; 0 if x is 0.
    """
    rows, columns = x.shape
    x = x / x.abs().max().clamp(min=torch.finfo(x.dtype).tiny)  # powers must not overflow
    for i, coefficients in enumerate(SQUARE_POLYNOMIALS if rows == columns else LONG_POLYNOMIALS):
        s = x @ x.T if rows <= columns else x.T @ x
        if i == 0:
            norm = largest_singular_value(s)
            x, s = x / norm, s / norm.square()
        factor = torch.zeros_like(s)
        for c in reversed(coefficients):  # Horner: ((... s + c) s + b) s + a
            factor = factor @ s
            factor.diagonal().add_(c)
        x = factor @ x if rows <= columns else x @ factor
    return x


def largest_singular_value(gram: Tensor) -> Tensor:
    """A tight upper bound on the largest singular value of x.

    The eighth root of the sum of the eighth powers of all of them is 1.00 to 1.07 times as much for
    momenta, where the root of the sum of squares is twice as much.

    Args:
        gram: (M, M), x x^T or x^T x.

    Returns:
        Scalar, above 0.

    Source: https://arxiv.org/abs/2305.16173.
    """
    return (gram @ gram).square().sum().sqrt().clamp(min=EPSILON) ** 0.25


OPTIMIZERS: dict[str, type[Rule]] = settings.OPTIMIZERS  # one table: its names need no torch
"""`optimizer.kind` -> the class of its rule."""
OPTIMIZERS.update(adamw=AdamW, sgd=SGD, muon=Muon)


def assign_rules(
    config: OptimizerConfig, model: nn.Module
) -> Iterator[tuple[Group, type[Rule], Members]]:
    """Yield which rule updates which parameters of a model, group by group."""
    kind = OPTIMIZERS[config.kind]
    for group, named in parameter_groups(model).items():
        parameters = list(named.values())
        decay = 0.0 if group == "vector" else config.weight_decay
        members = Members(parameters, matrix_heights(model, parameters), decay)
        yield group, kind if group in kind.groups else AdamW, members


class Optimizer:
    """Applies one rule to each group of parameters."""

    def __init__(self, config: OptimizerConfig, model: nn.Module) -> None:
        """Assign the rules to the parameters of a model.

        Args:
            config: the rules and their settings.
            model: the model in float32.
        """
        learned = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.parameters = list(learned.values())
        self.rules: list[Rule] = []
        self.tensors: dict[str, Tensor] = {}
        """State by name, such as `hidden.mean`: the tensors of the rule of that group,
        concatenated, and LoRA's corrections; may be written to."""
        for group, kind, members in assign_rules(config, model):
            rule = kind(members, config)
            self.rules.append(rule)
            self.tensors |= {f"{group}.{name}": x for name, x in flatten(rule.state).items()}
        weights = [w.detach() for w in self.parameters]
        counts = [x for x in self.tensors.values() if x.dim() == 0]  # on the processor
        # Allocated once: fresh memory is slow.
        self._kept = [(now, [x.clone() for x in now]) for now in (weights, counts) if now]
        if corrected(model):
            # A checkpoint has them merged into the frozen weights, which cannot be undone.
            self.tensors |= {f"learned.{n}": p.detach() for n, p in learned.items()}

    def step(self, lr_scale: float) -> None:
        """Update all parameters by their gradients.

        Args:
            lr_scale: factor on the peak learning rates.

        Raises:
            FloatingPointError: a weight would be NaN, or its square infinite. All weights are then
                those before the step, and the state is finite.
        """
        for now, before in self._kept:
            torch._foreach_copy_(before, now)
        with torch.no_grad():
            for rule in self.rules:
                rule.step(lr_scale)
            if total_norm(self.parameters).isfinite():
                return
        for now, before in self._kept:
            torch._foreach_copy_(now, before)
        for x in self.tensors.values():
            x.nan_to_num_(0.0, 0.0, 0.0)
        raise FloatingPointError("a step makes weights that are not finite")

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` had, in this or in the parallel optimizer.

        Raises:
            UserError: names or shapes differ from this optimizer's.
        """
        require_same_tensors(self.tensors, tensors, "optimizer")
        for name, own in self.tensors.items():
            own.copy_(tensors[name])


def flatten(state: dict[str, list[Tensor]]) -> dict[str, Tensor]:
    """Concatenate the tensors of a rule's state under each name; they become views."""
    flat: dict[str, Tensor] = {}
    for name, tensors in state.items():
        is_one_for_all = len(tensors) == 1 and tensors[0].dim() == 0
        flat[name] = tensors[0] if is_one_for_all else torch.cat([x.flatten() for x in tensors])
        sizes = [x.numel() for x in tensors]
        for x, own in zip(tensors, torch.split(flat[name].view(-1), sizes)):
            x.data = own.view(x.shape)
    return flat
