"""A model read from another program's files, in Folio's terms."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from folio.config import from_table
from folio.errors import UserError
from folio.export.forms import Tensors
from folio.export.graphs import FIELD_OF, Graph
from folio.export.ngrams import Counted
from folio.model.config import ModelConfig
from folio.model.gpt import GPT
from folio.ngrams.gpt import GPTWithNGrams
from folio.tokenizers.base import Tokenizer

MOST = 1 << 40
"""Largest count accepted in a config; torch cannot even represent more."""


@dataclass(frozen=True)
class Foreign:
    """Holds config, float32 weights, tokenizer, and n-grams where there are some."""

    source: str
    """The path by which errors name it."""
    config: ModelConfig
    tensors: Tensors
    tokenizer: Tokenizer
    counted: Counted | None = None

    def model(self) -> GPT:
        """Build the model, in evaluation mode."""
        if (beside := self.counted) is None:
            model = GPT(self.config)
        else:
            model = GPTWithNGrams(self.config, beside.ngrams, beside.weights)
        tensors = dict(self.tensors)
        if self.config.tied_head:
            tensors["lm_head.weight"] = tensors["token_embedding.weight"]
        model.load_state_dict(tensors)
        return model.eval().requires_grad_(False)

    def with_context(self, most: int) -> Foreign:
        """Keep so many positions at most; learned ones are cut off."""
        if self.config.context_length <= most:
            return self
        tensors = dict(self.tensors)
        if self.config.positions == "learned":
            tensors["positions.weight"] = tensors["positions.weight"][:most].clone()
        return replace(self, config=replace(self.config, context_length=most), tensors=tensors)


def read_config(
    graph: Graph, table: dict[str, Any], others: dict[str, Any], n_numbers: int, source: str
) -> ModelConfig:
    """Make the config that a file says.

    Args:
        graph: of the file.
        table: its settings, by the keys of the graph.
        others: fields that are read elsewhere.
        n_numbers: in all its tensors, so that nothing larger is built.
        source: how errors call it.

    Raises:
        UserError: a setting is missing, impossible, or what the graph has not.
    """
    fields: dict[str, Any] = {name: allowed[0] for name, allowed in graph.needs.items()}
    for key, name in graph.keys.items():
        if name == "bias":
            continue
        if key not in table:
            raise UserError(f"{source} lacks the setting {key}.")
        fields[FIELD_OF.get(name, name)] = table[key]
    try:
        config = from_table(ModelConfig, fields | others)
    except UserError as error:
        raise UserError(f"{source} has an impossible setting: {error}") from None
    require_numbers(config, n_numbers, source)
    return _shortest(config)


def require_file(path: Path) -> None:
    """Refuse what is no file: a device or a pipe has no end, and a link may lead to one.

    Raises:
        UserError: there is none.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.")


def require_numbers(config: ModelConfig, n_numbers: int, source: str) -> None:
    """Build nothing that is larger than the file: biases may be missing there, weights not.

    Raises:
        UserError: the config promises more than `n_numbers`, or no vocabulary.
    """
    for name, value in asdict(config).items():
        if isinstance(value, int) and value > MOST:
            raise UserError(f"{source} has an impossible setting: model.{name} is above {MOST:,}.")
    if config.vocab_size < 1 or replace(config, bias=False).n_parameters > n_numbers:
        raise UserError(
            f"{source} promises {config.n_parameters:,} parameters and {config.vocab_size:,} ids, "
            f"but its tensors hold {n_numbers:,} numbers."
        )


def _shortest(config: ModelConfig) -> ModelConfig:
    """Leave out what the defaults say."""
    if config.n_kv_heads == config.n_heads:
        config = replace(config, n_kv_heads=0)
    if config.head_dim * config.n_heads == config.d_model:
        config = replace(config, head_dim=0)
    if config.d_ff == replace(config, d_ff=0).feed_forward_width:
        config = replace(config, d_ff=0)
    return config
