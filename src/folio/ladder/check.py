"""Tests a learner's own version of a step: what it must hold, and how well it learns.

A file is a step if its `build(sizes)` returns a model from (B, T) token ids to (B, T, V) logits.
How it computes them is its own business: the tests look at what goes in and what comes out.

Shapes:  B batch · T positions · V vocabulary
"""

from __future__ import annotations

import math
import runpy
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from folio.console import amount
from folio.errors import UserError
from folio.ladder.sizes import Sizes
from folio.ladder.steps import Step, build_model
from folio.ladder.training import climb
from folio.recipe.prepare import Prepared

SIZES = Sizes(vocab_size=11, context_length=6, d_model=12, n_heads=3, n_layers=2)
"""Sizes of the model that is tested; no two that might be mixed up are equal."""

MAX_STEPS = 1000
"""Optimizer steps after which a learner's model and the step's own are compared."""

TOLERANCE = 0.05
"""Nats per token by which a loss may be above the step's own; seeds differ by less."""

MOST_PARAMETERS = 1.1
"""Parameters of a learner's model beside those of the step's own, so that losses compare."""

Build = Callable[[Sizes], nn.Module]


@dataclass(frozen=True)
class Learner:
    """A learner's file, loaded."""

    path: Path
    build_function: Build

    def build(self, sizes: Sizes) -> nn.Module:
        """Build the model, with weights drawn from torch's random state.

        Raises:
            UserError: the code fails, or returns something else.
        """
        with self.running("build(sizes)"):
            model = self.build_function(sizes)
        if not isinstance(model, nn.Module):
            raise UserError(
                f"{self.path}: build(sizes) must return a torch.nn.Module, got "
                f"{type(model).__name__}."
            )
        return model

    def running(self, what: str) -> AbstractContextManager[None]:
        """Turn what the learner's code raises into one line."""
        return _one_line(self.path, what)


def load(path: Path) -> Learner:
    """Run a learner's file.

    Raises:
        UserError: there is no such file, it does not run, or it has no `build`.
    """
    path = path.absolute()
    if not path.is_file() or path.suffix != ".py":
        raise UserError(f"There is no Python file {path}. Give one that has build(sizes).")
    with _one_line(path, "the file"):
        names = runpy.run_path(str(path))
    if not callable(names.get("build")):
        raise UserError(
            f"{path} has no function build(sizes), which returns the model. See the end of "
            f"src/folio/ladder/step1_head.py."
        )
    return Learner(path, names["build"])


@contextmanager
def _one_line(path: Path, what: str) -> Iterator[None]:
    """Turn an exception into a UserError that names the line of a file."""
    try:
        yield
    except UserError:
        raise
    except SyntaxError as error:
        raise UserError(f"{path}, line {error.lineno}: {error.msg}.") from None
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame.lineno for frame in frames if frame.filename == str(path)]
        where = f", line {own[-1]}" if own else ""
        said = " ".join(str(error).split()) or "no message"
        raise UserError(f"{path}{where}: {what} raised {type(error).__name__}: {said}") from error


# ---- what must hold ----------------------------------------------------------------------


def look(step: Step, learner: Learner) -> Iterator[str]:
    """Test what must hold before any training; yields what does, in words.

    Raises:
        UserError: the first thing that does not hold, and what to do about it.
    """
    torch.manual_seed(0)
    model = learner.build(SIZES).eval()  # without dropout, which would look like a leak

    def logits_of(token_ids: Tensor) -> Tensor:
        with learner.running("the model"):
            return model(token_ids)

    def require(holds: bool, found: str, hint: str) -> None:
        if not holds:
            raise UserError(f"{learner.path}: {found} {hint}")

    for b, t in ((2, 5), (3, 6), (1, 1)):
        logits = logits_of(_tokens(b, t))
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        require(
            shape == (b, t, SIZES.vocab_size),
            f"for token ids of shape {(b, t)} the logits must have the shape "
            f"{(b, t, SIZES.vocab_size)}, got {shape}.",
            "Each position needs a score for each token.",
        )
    yield "a score for each token at each position"

    past = _tokens(2, 6)
    for t in range(5):
        future = past.clone()
        future[:, t + 1 :] = (future[:, t + 1 :] + 1) % SIZES.vocab_size
        require(
            torch.allclose(logits_of(past)[:, : t + 1], logits_of(future)[:, : t + 1], atol=1e-6),
            f"position {t} sees position {t + 1}, which it must predict.",
            "Set the scores of later positions to -inf before the softmax.",
        )
    yield "no position sees a later one"

    other = past.clone()
    other[:, 0] = (other[:, 0] + 1) % SIZES.vocab_size
    changed = (logits_of(past) != logits_of(other)).any(dim=2)
    require(bool(changed[:, 0].all()), "logits do not depend on the token itself.", "Embed it.")
    if step.number == 0:
        require(not changed[:, 1:].any(), "a position sees more than its own token.",
                "Step 0 is a table: row i scores what follows token i.")  # fmt: skip
        yield "a position sees its own token alone"
    else:
        require(bool(changed.all()), "some position does not see the first one.",
                "Attention must reach from each position back to position 0.")  # fmt: skip
        yield "each position sees the first one"

    loss = nn.functional.cross_entropy(logits_of(past).flatten(0, 1), past.flatten())
    with learner.running("the backward pass"):
        loss.backward()
    idle = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    require(not idle, f"the loss does not depend on {', '.join(idle[:3])}.",
            "Use these weights in forward, or leave them out.")  # fmt: skip
    yield "each weight takes part"


def _tokens(b: int, t: int) -> Tensor:
    """(B, T) token ids, the same each time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, SIZES.vocab_size, (b, t), generator=generator)


def check_size(step: Step, learner: Learner, vocab_size: int) -> str:
    """Require that the model has about as many parameters as the step's own.

    Raises:
        UserError: it has more.
    """
    sizes = Sizes(vocab_size=vocab_size)
    ours, own = (_n_parameters(m) for m in (learner.build(sizes), build_model(step, sizes)))
    if ours > MOST_PARAMETERS * own:
        raise UserError(
            f"{learner.path}: the model has {ours:,} parameters where step {step.number} has "
            f"{own:,}, so that losses would not compare. Take sizes.d_model and sizes.head_dim as "
            f"they are."
        )
    return f"{ours:,} parameters, and {own:,} in step {step.number}"


def _n_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def compare(
    step: Step, learner: Learner, text: Prepared, *, seed: int = 1, max_steps: int = MAX_STEPS
) -> str:
    """Train the learner's model beside the step's own, on the same text, in the same order.

    Returns:
        Both losses, in words.

    Raises:
        UserError: the learner's loss is higher by more than TOLERANCE, or not finite.
    """
    own = climb(step, text, seed=seed, max_steps=max_steps).validation_loss
    with learner.running("the training"):
        result = climb(step, text, seed=seed, max_steps=max_steps, build=learner.build)
    ours = result.validation_loss
    after = amount(max_steps, "step")
    said = f"validation loss {ours:.4f} after {after}, step {step.number} {own:.4f}"
    if not (math.isfinite(ours) and ours <= own + TOLERANCE):
        raise UserError(
            f"{learner.path}: {said}. It must be at most {TOLERANCE} higher: compare your forward "
            f"with src/folio/ladder/{step.module}.py."
        )
    return said
