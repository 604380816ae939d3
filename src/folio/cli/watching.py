"""Shows the progress of `folio train` and `folio resume`."""

from __future__ import annotations

import shlex
from math import isfinite
from typing import Any

from folio.console import Progress, amount, columns, duration, padded, say, show, show_fact
from folio.recipe.finish import Result, sample_command
from folio.recipe.watcher import ENDINGS, Watcher
from folio.run.card import diagnose_run
from folio.run.directory import Run
from folio.run.held_out import too_small
from folio.run.metrics import best_evaluation
from folio.run.ngrams import in_words, read_ngram_weights
from folio.storage import json_text, read_json
from folio.training.distributed import STOPPED, is_launched, joined
from folio.training.pace import StepPlan
from folio.training.parts import Ending, Evaluation, Training
from folio.training.state import TrainingState


class TerminalWatcher(Watcher):
    """Shows a training as it goes."""

    def __init__(self, tell_device: bool = False) -> None:
        self.tell_device = tell_device
        self.progress: Progress | None = None
        self.validation_loss = ""
        self.loss: float | None = None

    def tell(self, line: str) -> None:
        say(line)

    def begin(self, run: Run, training: Training, state: TrainingState) -> None:
        if self.tell_device:
            say(f"device: {training.device}")
        n_parameters = sum(parameter.numel() for parameter in training.model.parameters())
        epoch, new = training.stream.targets_per_epoch, 1 - training.stream.share
        per_step = training.config.batch_size * training.context_length
        steps = training.pace.last
        say(
            f"{run.path}: {n_parameters:,} parameters, {epoch + 1:,} training tokens, "
            f"{'about ' if training.deadline else ''}{amount(steps, 'step')} of {per_step:,} "
            f"({steps * per_step * new / epoch:.1f} epochs). Ctrl-C stops and saves."
        )
        self.progress = Progress(steps, done=state.step)
        self.progress.__enter__()
        self.began = (state.tokens, state.seconds)
        self.step, self.fitting_windows = training.step, 0

    def stepped(self, state: TrainingState, loss: float, learning_rate: float) -> None:
        assert self.progress is not None
        if self.fitting_windows != (fitting := self.step.fitting_windows):
            self.fitting_windows = fitting
            self.progress.line(
                f"step {state.step}: memory ran out; {amount(fitting, 'window')} at once from here "
                f"on, whose gradients are added up to the same batch"
            )
        self.loss = loss
        self._update(state)

    def _update(self, state: TrainingState) -> None:
        assert self.progress is not None
        tokens, seconds = state.tokens - self.began[0], state.seconds - self.began[1]
        numbers = f"loss {self.loss:.3f}{self.validation_loss}  {tokens / seconds:,.0f} tokens/s"
        self.progress.update(state.step, numbers)

    def evaluated(self, state: TrainingState, evaluation: Evaluation) -> None:
        assert self.progress is not None
        best = "  (best)" if state.best_step == state.step else ""
        self.validation_loss = f"  best validation {state.best_validation_loss:.3f}"
        short = evaluation.short_length
        read = f" in windows of {short}" if short else ""
        self.progress.line(
            f"step {state.step}: train loss {evaluation.training_loss:.4f}, "
            f"validation loss {evaluation.validation_loss:.4f}{read}{best}"
        )

    def paced(self, plan: StepPlan) -> None:
        assert self.progress is not None
        self.progress.plan_anew(plan.last)

    def ended(self, state: TrainingState, ending: Ending) -> None:
        assert self.progress is not None
        if self.loss is not None:  # the last evaluation came after it
            self._update(state)
        self.close()
        after = f"{amount(state.step, 'step')} and {duration(state.seconds)}"
        say(f"{ENDINGS[ending]} after {after}")

    def close(self) -> None:
        """Stop the bar, so that what comes next, such as an error, stands below it."""
        if self.progress is not None:
            self.progress.__exit__(None, None, None)
            self.progress = None


def ended(run: Run) -> dict[str, Any]:
    """The --json output for a run that was already complete."""
    last = run.events("end")[-1]
    best = best_evaluation(run.events("evaluation"))
    diagnosis = diagnose_run(run)
    return {
        "run": str(run.path),
        "ending": "complete",
        "step": last["step"],
        "seconds": last["seconds"],
        "best_validation_loss": best and best["validation_loss"],
        "best_step": best and best["step"],
        "held_out": read_json(run.held_out_file, list) if run.held_out_file.exists() else [],
        "verdict": diagnosis.verdict,
        "reason": diagnosis.reason,
        "try": diagnosis.command,
    }


def leave_with(result: Result | None, json: bool, run: Run | None = None) -> None:
    """Show how a training ended; of several processes the first one does.

    Args:
        result: None where a run was complete already.
        json: print it as JSON.
        run: that was asked to go on.

    Raises:
        SystemExit: the training was interrupted, and whoever launched it may start it again.
    """
    group = joined()
    if group is None or group.rank == 0:
        if result is not None:
            print_result(result, json)
        elif run is not None:
            if json:
                show(json_text(ended(run), indent=2))
            longer = f"folio resume {run.word} --minutes 5"
            say(f"{run.path} is complete. Train it longer with: {longer}")
    if is_launched() and result is not None and result.ending == "interrupted":
        raise SystemExit(STOPPED)


def print_result(result: Result, json: bool = False) -> None:
    """The end of a training: a sample, the place, the numbers, and last the one next command."""
    state, run = result.state, result.run
    if json:
        measured = {
            "ending": result.ending,
            "step": state.step,
            "seconds": state.seconds,
            "best_validation_loss": state.best_validation_loss,
            "best_step": state.best_step if isfinite(state.best_validation_loss) else None,
            "held_out": [text.record() for text in result.held_out],
            "verdict": result.diagnosis.verdict,
            "reason": result.diagnosis.reason,
            "try": result.diagnosis.command,
            "sample": result.sample,
        }
        show(json_text({"run": str(run.path)} | measured, indent=2))
        return
    if result.sample:
        show(f"\n{result.sample.strip()}\n")
    files = [path.name for path in (run.card_file, run.picture_file, run.training_page)]
    show(f"run         {run.path}  ({', '.join(n for n in files if (run.path / n).exists())})")
    width = max([12, *(columns(text.name) + 2 for text in result.held_out)])
    for text in result.held_out:
        at = f", step {state.read_step}" if text is result.held_out[0] else ""
        show(f"{padded(text.name, width)}{text}{at}")
    if record := read_ngram_weights(run):
        show_fact("n-grams", in_words(record))
    if warning := too_small(result.held_out):
        show_fact("warning", warning)
    show_fact("diagnosis", f"{result.diagnosis.verdict}: {result.diagnosis.reason}")
    if result.ending == "interrupted":
        use = "go on", f"folio resume {shlex.quote(str(run.path))}"
    else:
        use = "write more", sample_command(run)
    if use[1] != result.diagnosis.command:
        show("{:<12}{}".format(*use))
    show(f"next        {result.diagnosis.command}")
