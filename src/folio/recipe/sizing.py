"""Chooses the size that suits a text, a machine and the available time.

From the smallest size up, each is tried for a moment. The largest one is taken for which the time
suffices to read enough tokens and the text is long enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from folio.accelerator import ran_out_of_memory
from folio.config import Table, merge
from folio.console import duration, few_digits
from folio.device import Device, cores
from folio.recipe.budget import sample_less
from folio.recipe.build import choose_for, fit_vocabulary
from folio.recipe.memory import fit_memory, memory_limit, windows_that_fit
from folio.recipe.prepare import Prepared
from folio.recipe.presets import SIZES, two_digits
from folio.recipe.recipe import BUDGETS, Recipe, make_recipe
from folio.recipe.speed import Throughput, matmul_flops, measure, steps_in, token_flops
from folio.tokenizers.base import TokenIds
from folio.training.config import DEFAULT_MINUTES

TOKENS_PER_PARAMETER = 2.0
"""Least tokens to train on per parameter, repeats included. On tiny Shakespeare mini drew level
with micro at 1.4, in equal time (docs/experiments.md, "Where the next size begins to pay"), and
micro was far ahead of nano at 2.3; of 5 MB of sources nano was far ahead of micro at 1.4 ("Rare
tokens"). What holds above mini is an assumption."""
MUON_EPOCHS = 10.0
"""Epochs that also suffice with Muon: mini was ahead of micro in equal time when they read
python-docs 12 and 25 times, by no more than seeds differ, and behind at 4 and 8 epochs of tiny
Shakespeare (docs/experiments.md, "Five minutes of a fast machine")."""

PARAMETERS_PER_TOKEN = 16.0
"""Most parameters per token of training text: the largest ratio known to gain is 14.4 (the same
entry)."""

DROPPED = ("embedding_dropout", "residual_dropout", "attention_dropout")


class Regularization(NamedTuple):
    """Regularization that keeps a model from memorizing a text that it reads many times."""

    dropped: tuple[float, float, float]
    """Dropout of the embedding, of each sublayer's output, and of the attention weights, which
    costs a tenth of the time."""
    matrix_decay: float = 0.0
    """Muon's cautious weight decay."""
    penalty: float = 0.0
    """Weight of the confidence penalty."""


REGULARIZATION = (
    (4.0, Regularization((0.0, 0.0, 0.0))),
    (10.0, Regularization((0.1, 0.1, 0.0))),
    (math.inf, Regularization((0.2, 0.2, 0.2))),
)
"""Largest number of epochs -> regularization, with AdamW or SGD. The thresholds are assumptions."""
MUON_REGULARIZATION = (
    (4.0, Regularization((0.0, 0.0, 0.0), 0.05)),
    (7.0, Regularization((0.0, 0.0, 0.0), 0.5, 0.1)),
    (10.0, Regularization((0.0, 0.0, 0.0), 1.0, 0.1)),
    (math.inf, Regularization((0.1, 0.1, 0.0), 2.0, 0.1)),
)
"""The same with Muon, whose decay does more than dropout and costs nothing. From
docs/experiments.md: decay of 0.5 was best at 5 epochs of tiny Shakespeare ("Neurons that move
alike"), 1.0 at 8 of it, 2.0 at 12 and at 25 of python-docs ("Five minutes of a fast machine"). No
dropout was best at 5 epochs ("Decay in place of dropout"), 0.1 at 12, and better than 0.2 at 25. A
penalty of 0.1 was better than none at 5 epochs of tiny Shakespeare over three seeds, and in one at
9 and at 15 of python-docs, where 0.2 was worse ("Certainty that costs")."""
FORGOTTEN_EPOCHS = 1 / 6
"""Decay takes most of a weight in 1 / (rate * decay) steps at the full rate, and what is best for
those does not change with the text if it is counted in epochs (https://arxiv.org/abs/2405.13698).
The best decays above are 0.17 to 0.36 of an epoch; no decay may take less. Of prose of 2.2 M
tokens, where an epoch has five times as many steps, 0.4 has 2.7 % less loss than 1.0
(docs/experiments.md, "How long a weight is remembered")."""

MANY_IDS = 1000
"""Ids of a vocabulary from which on most are rare. Of characters there are fewer, and nothing
changes there; that it begins here is an assumption between 65 ids and 4,096."""
RARE_BETA2 = 0.999
"""AdamW's memory of squared gradients, beside Muon, for embeddings of such ids: an id that comes
once in a hundred steps is forgotten by the 0.99 that suits characters, and then moves too far
(docs/experiments.md, "Rare tokens")."""
RARE_RATE = 1.5
"""Its learning rate then, times the usual one (the same entry)."""

LONG_WINDOW = 512
"""Tokens in a window, at least: what a text repeats is further away than 128 tokens
(docs/experiments.md, "Windows that begin short")."""
SHORT_FRACTION = 0.7
"""Share of the steps that read short windows, where few of the long ones make a batch (the same
entry)."""
FEW_WINDOWS = 8
"""Of fewer windows, a batch says too little: of long ones only, two or four at a time, a model of
documentation was 3 to 8 % worse (the same entry)."""
LEAST_WINDOWS = 100
"""Windows that a text must have, or they stay as they are; an assumption."""

SHAPE = ("n_layers", "n_heads", "n_kv_heads", "d_model", "head_dim", "d_ff")
"""A user who sets one of these has chosen a size."""
TRIAL_SECONDS = 0.5
"""Seconds of training steps in the trial of each size."""
TRIAL_FLOPS = 1e11
"""Operations in the step of a trial, half a second on a slow machine; of a larger batch only a part
is tried."""
GPU_TRIAL_SECONDS = 0.1
"""Seconds of the same on a GPU, if all of it were as fast as a matmul; a fixed number of operations
would be microseconds of one card, and a second of another."""


@dataclass(frozen=True)
class Candidate:
    """One size, with a budget and a text."""

    recipe: Recipe
    speed: Throughput
    measured: bool
    """Whether its speed was measured, or extrapolated from a smaller size."""
    minutes: float
    n_training: int
    """Tokens of the training text."""
    n_validation: int
    memory_bytes: int
    """Peak memory with the largest micro-batch that fits."""
    memory_limit: int
    n_counted: int | None = None
    """Targets of the training text that count, those of answers; None if all do."""

    @property
    def steps(self) -> int:
        """Steps that fit into the budget, evaluations included."""
        seconds, length = self.minutes * 60, self.recipe.model.context_length
        recipe, speed = sample_less(self.recipe, self.speed, seconds, self.n_validation)
        n_read = recipe.training.tokens_read(self.n_validation)
        return steps_in(seconds, speed, recipe.training, length, n_read)

    @property
    def tokens_per_step(self) -> int:
        """Tokens in the whole batch."""
        return self.recipe.training.batch_size * self.recipe.model.context_length

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of training."""
        return self.tokens_per_step / self.speed.step_seconds

    @property
    def n_tokens(self) -> int:
        """Tokens trained on in the budget, repeats included."""
        return self.steps * self.tokens_per_step

    @property
    def epochs(self) -> float:
        """Epochs of the training text in the budget."""
        return self.n_tokens * (1 - self.recipe.start.kept) / max(self.n_training - 1, 1)

    @property
    def most_decay(self) -> float:
        """Muon's decay that takes most of a weight in FORGOTTEN_EPOCHS, where it is high."""
        steps = FORGOTTEN_EPOCHS * self.n_training / self.tokens_per_step
        rate = max(self.recipe.optimizer.matrix_learning_rate, 1e-9)  # 0 moves nothing
        return max(two_digits(1 / (rate * steps)), MUON_REGULARIZATION[0][1].matrix_decay)

    @property
    def share_of_needed(self) -> float:
        """Tokens that there is time for, as a share of what the size needs."""
        needed = TOKENS_PER_PARAMETER * self.recipe.model.n_parameters
        if self.recipe.optimizer.kind == "muon":
            needed = min(needed, MUON_EPOCHS * self.n_training)
        return self.n_tokens / needed

    @property
    def parameters_per_token(self) -> float:
        """Parameters per token of the training text that counts."""
        return self.recipe.model.n_parameters / (self.n_counted or self.n_training)

    @property
    def impossible(self) -> str:
        """Why it cannot be trained, in words; empty if it can."""
        if self.memory_bytes > self.memory_limit:
            return f"needs {self.memory_bytes / 1e9:.1f} GB of memory"
        if self.n_training <= (length := self.recipe.model.context_length):
            return f"reads {length} tokens at once, more than the text has"
        return ""

    @property
    def unfit(self) -> str:
        """What speaks against it however long it is trained; empty if nothing does."""
        if self.parameters_per_token <= PARAMETERS_PER_TOKEN:
            return self.impossible
        which = "you have" if self.n_counted is None else "that counts"
        ratio = f"{self.parameters_per_token:.0f} parameters for each token {which}"
        return self.impossible or f"starves: {ratio}"

    @property
    def trouble(self) -> str:
        """What speaks against it in this time, in words; empty if it suits."""
        if self.unfit or self.share_of_needed >= 1:
            return self.unfit
        return f"needs about {duration(60 * self.minutes / self.share_of_needed)}"


def best_of(candidates: Iterable[Candidate]) -> tuple[Candidate, Candidate | None]:
    """The last candidate before something speaks against one, or the first; and the next one.

    Consumes no more candidates than it must.
    """
    rest = iter(candidates)
    best = next(rest)
    for candidate in rest:
        if candidate.trouble:
            return best, candidate
        best = candidate
    return best, None


def candidates(
    recipes: Iterable[Recipe], prepared: Prepared, minutes: float, in_use: int
) -> Iterator[Candidate]:
    """Yield each recipe as a candidate for a budget; it is tried only when asked for.

    Args:
        recipes: recipes from the smallest model up.
        prepared: the text.
        minutes: the budget.
        in_use: bytes that the process held before anything was built.

    Raises:
        UserError: the first one cannot be trained on this text or in this memory.
    """
    texts = training, validation = prepared.training(), prepared.validation()
    before: Candidate | None = None
    counted = prepared.record["tokens"].get("counted", {}).get("training")
    for recipe in recipes:
        recipe = fit_vocabulary(recipe, prepared.tokenizer.vocab_size)
        device = choose_for(recipe)
        recipe = replace(recipe, device=device.config)
        limit = memory_limit(recipe, device)
        if before is None:
            fit_memory(recipe, device, in_use)
        recipe, memory_bytes = windows_that_fit(recipe, device, limit, in_use)
        speed = expected_speed(recipe, before) if before else try_out(recipe, device, *texts)
        n = len(training), len(validation)
        here = Candidate(recipe, speed, not before, minutes, *n, memory_bytes, limit, counted)
        # Extrapolations are right within a factor of two; if more is missing, no trial is needed.
        # On a GPU, a small model says nothing of a larger one, which fills it.
        may_suit = here.share_of_needed > 0.5 or device.config.kind != "cpu"
        if not here.measured and not here.impossible and may_suit:
            here = tried(here, device, *texts)
        yield here
        before = here


def tried(
    candidate: Candidate, device: Device, training: TokenIds, validation: TokenIds
) -> Candidate:
    """Measure the speed of a candidate; if memory runs out, it needs more than there is."""
    try:
        speed = try_out(candidate.recipe, device, training, validation)
    except (MemoryError, RuntimeError) as error:
        if device.config.kind == "cpu" or not ran_out_of_memory(error):
            raise
        return replace(candidate, memory_bytes=2 * candidate.memory_limit)
    return replace(candidate, speed=speed, measured=True)


def try_out(recipe: Recipe, device: Device, training: TokenIds, validation: TokenIds) -> Throughput:
    """Measure the speed of a recipe for a moment; of a large batch only a part is tried."""
    n_windows = trial_windows(recipe, device)
    return measure(recipe, device, training, validation, TRIAL_SECONDS, n_windows)


def trial_windows(recipe: Recipe, device: Device) -> int:
    """Windows of a batch that a trial takes a step with; the batch may have fewer."""
    flops, least = TRIAL_FLOPS, device.config.threads
    if device.config.kind != "cpu":
        flops, least = GPU_TRIAL_SECONDS * matmul_flops(recipe, device), 1
    return max(int(flops / (recipe.model.context_length * token_flops(recipe))), least)


def expected_speed(recipe: Recipe, smaller: Candidate) -> Throughput:
    """Extrapolate the speed of a size from that of a smaller one."""
    ratio = token_flops(recipe) / token_flops(smaller.recipe)
    token_seconds = ratio / smaller.tokens_per_second
    return Throughput(
        token_seconds * recipe.training.batch_size * recipe.model.context_length,
        smaller.speed.evaluation_seconds * ratio,
    )


def size_recipe(
    given: Table,
    prepared: Prepared,
    in_use: int,
    tell: Callable[[str], None],
    used_seconds: float = 0.0,
) -> tuple[Recipe, Throughput | None]:
    """Choose the size and the regularization that a budget in minutes leaves open.

    Args:
        given: what the user gave, which is kept; so is everything if the budget is not in minutes.
        prepared: its text.
        in_use: as in candidates.
        tell: receives a line about what was chosen, and why.
        used_seconds: seconds of the minutes that have elapsed.

    Returns:
        The recipe, and the speed of its size if that was measured.

    Raises:
        UserError: as in candidates.
    """
    model, training = given.get("model", {}), given.get("training", {})
    if any(training.get(name) for name in BUDGETS if name != "minutes"):
        return make_recipe(given), None
    minutes = training.get("minutes") or DEFAULT_MINUTES
    choices: list[Table] = [{"size": size} for size in SIZES] if is_size_open(given) else [{}]
    n_tokens = len(prepared.training())
    recipes = (make_recipe(given, with_windows(choice, given, n_tokens)) for choice in choices)
    left = max(minutes - used_seconds / 60, minutes / 10)
    chosen, next_one = best_of(candidates(recipes, prepared, left, in_use))
    size, words = chosen.recipe.size, []
    millions = f"{chosen.recipe.model.n_parameters / 1e6:.1f} M parameters"
    if is_size_open(given):
        words.append(f"size {size} ({millions})")
    elif "size" not in given:
        words.append(f"{millions} in your shape")
    if part := chosen.recipe.schedule.short_fraction:
        short, long = chosen.recipe.schedule.short_length, chosen.recipe.model.context_length
        words.append(f"windows of {long} (of {short} for the first {100 * part:g} % of the steps)")
    muon, optimizer = chosen.recipe.optimizer.kind == "muon", given.get("optimizer", {})
    regularization = regularization_for(chosen.epochs, muon)
    settings: dict[str, Table] = {"optimizer": {}}
    if not any(name.endswith("_dropout") for name in model):
        settings["model"] = dict(zip(DROPPED, regularization.dropped))
        epochs = few_digits(chosen.epochs)
        words.append(f"dropout {max(regularization.dropped):g} (about {epochs} epochs)")
    if muon and "matrix_weight_decay" not in optimizer:
        decay = min(regularization.matrix_decay, chosen.most_decay)
        settings["optimizer"]["matrix_weight_decay"] = decay
        words.append(f"decay {decay:g}")
    if muon and prepared.tokenizer.vocab_size >= MANY_IDS:
        usual = chosen.recipe.optimizer.learning_rate
        rare = {"beta2": RARE_BETA2, "learning_rate": two_digits(RARE_RATE * usual)}
        rare = {name: x for name, x in rare.items() if name not in optimizer}
        settings["optimizer"] |= rare
        words += [f"{name} {x:g}" for name, x in rare.items()]
    if regularization.penalty and "confidence_penalty" not in training:
        settings["training"] = {"confidence_penalty": regularization.penalty}
        words.append(f"confidence penalty {regularization.penalty:g}")
    if words:
        tell(
            f"for {minutes:g} minutes: {', '.join(words)}"
            + (f"; {next_one.recipe.size} {next_one.trouble}" if next_one else "")
        )
    speed = chosen.speed if chosen.measured else None
    choice = with_windows({"size": size}, given, n_tokens)
    return make_recipe(given, choice, settings), speed


def is_size_open(given: Table) -> bool:
    """Whether a budget in minutes chooses the size: where neither it nor a part of its shape is
    given.
    """
    return "size" not in given and not any(name in given.get("model", {}) for name in SHAPE)


def with_windows(choice: Table, given: Table, n_tokens: int) -> Table:
    """A choice of a size with the windows that suit a budget in minutes, at as many tokens a step:
    long ones, which begin short where a batch would have few of them.

    Each thread reads windows of its own, so that many threads have shorter ones. Learned positions
    stay as they are, since each needs training; so does what the user gave.

    Args:
        choice: nothing, or a size.
        given: what the user gave.
        n_tokens: length of the training text.
    """
    recipe = make_recipe(given, choice)
    n_step = recipe.training.batch_size * recipe.model.context_length
    length = LONG_WINDOW
    while length * (recipe.device.threads or cores()) > n_step:
        length //= 2
    length = max(recipe.model.context_length, length)
    batch_size = n_step // length
    is_given = (
        any(name in given.get("model", {}) for name in (*SHAPE, "context_length"))
        or "batch_size" in given.get("training", {})
        or "short_fraction" in given.get("schedule", {})
        or bool(given.get("start", {}).get("run"))
    )
    is_too_short = n_tokens < LEAST_WINDOWS * length
    if is_given or is_too_short or recipe.model.positions != "rope" or batch_size >= FEW_WINDOWS:
        return choice
    windows: Table = {
        "model": {"context_length": length},
        "training": {"batch_size": batch_size},
        "schedule": {"short_fraction": SHORT_FRACTION},
    }
    return merge(choice, windows)


def regularization_for(epochs: float, muon: bool) -> Regularization:
    """The regularization for a training of this number of epochs.

    >>> regularization_for(7.0, muon=False).dropped
    (0.1, 0.1, 0.0)
    """
    table = MUON_REGULARIZATION if muon else REGULARIZATION
    return next(regularization for most, regularization in table if epochs <= most)
