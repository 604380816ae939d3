"""The steps against their promises, and against the model that the rest of Folio has."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from folio.ladder import step4_blocks, step5_residuals, step6_layer_norm
from folio.ladder.sizes import Sizes
from folio.ladder.step0_bigram import Bigram
from folio.ladder.step1_head import Head
from folio.ladder.step2_heads import MultiHead
from folio.ladder.step5_residuals import Attention
from folio.ladder.steps import STEPS, Step, build_model
from folio.model import attention
from folio.model.block import Block
from folio.model.config import ModelConfig
from folio.model.gpt import GPT

SIZES = Sizes(vocab_size=11, context_length=6, d_model=12, n_heads=3, n_layers=2)
FOLDER = Path(attention.__file__).parents[1] / "ladder"

every_step = pytest.mark.parametrize("step", STEPS, ids=lambda step: step.module)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def tokens(b: int, t: int) -> Tensor:
    return torch.randint(0, 11, (b, t), generator=torch.Generator().manual_seed(0))


def build(step: Step) -> nn.Module:
    torch.manual_seed(0)
    return build_model(step, SIZES)


@every_step
def test_logits_have_a_row_for_each_position(step: Step):
    assert build(step)(tokens(2, 5)).shape == (2, 5, 11)


@every_step
def test_position_t_does_not_see_position_t_plus_1(step: Step):
    model, past = build(step), tokens(2, 6)
    for t in range(5):
        future = past.clone()
        future[:, t + 1 :] = (future[:, t + 1 :] + 1) % 11
        assert torch.equal(model(past)[:, : t + 1], model(future)[:, : t + 1])


@pytest.mark.parametrize("step", STEPS[1:], ids=lambda step: step.module)
def test_from_step_1_on_every_position_sees_the_first_one(step: Step):
    model, one = build(step), tokens(1, 6)
    other = one.clone()
    other[0, 0] = (other[0, 0] + 1) % 11
    assert (model(one) != model(other)).any(dim=2).all()


def test_the_bigram_sees_the_last_token_alone():
    one = tokens(1, 6)
    other = one.clone()
    other[0, :5] = (other[0, :5] + 1) % 11
    model = Bigram(SIZES)
    assert torch.equal(model(one)[:, 5], model(other)[:, 5])


def test_one_head_equals_the_attention_of_the_model():
    head, x = Head(SIZES, head_dim=4), draw(2, 5, 12)
    q, k, v = (proj(x)[:, None] for proj in (head.q_proj, head.k_proj, head.v_proj))
    torch.testing.assert_close(head(x), attention.causal_attention(q, k, v)[:, 0])


def test_several_heads_equal_the_attention_of_the_model():
    config = ModelConfig(d_model=12, n_heads=3, positions="none", bias=True)
    whole, ours, x = attention.Attention(config, None), Attention(SIZES), draw(2, 5, 12)
    copy_attention(ours, whole)
    torch.testing.assert_close(ours(x), whole(x))


def test_several_heads_see_what_each_would_see_alone():
    heads, x = MultiHead(SIZES), draw(2, 5, 12)
    assert heads(x).shape == (2, 5, 12)
    for i, head in enumerate(heads.heads):
        assert torch.equal(heads(x)[:, :, 4 * i : 4 * i + 4], head(x))


def test_a_block_of_step_4_keeps_nothing_of_what_it_reads():
    block, x = step4_blocks.Block(SIZES), draw(2, 5, 12)
    assert torch.equal(block(x), block.feed_forward(block.attention(x)))


def test_a_silent_block_of_step_5_passes_on_what_it_reads():
    block, x = step5_residuals.Block(SIZES), draw(2, 5, 12)
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(block(x), x)


def test_both_sublayers_of_step_5_change_the_stream():
    x = draw(2, 5, 12)
    for silent in ("attention", "feed_forward"):
        block = step5_residuals.Block(SIZES)
        for parameter in getattr(block, silent).parameters():
            nn.init.zeros_(parameter)
        other = block.feed_forward if silent == "attention" else block.attention
        torch.testing.assert_close(block(x), x + other(x))


def test_step_3_thinks_after_it_has_looked_around_and_bends():
    model = build(STEPS[3])
    assert isinstance(model.get_submodule("body.0"), MultiHead)
    thinks, proj = model.get_submodule("body.1"), model.get_submodule("body.1.proj")
    assert isinstance(proj, nn.Linear)
    x = draw(2, 5, 12)
    torch.testing.assert_close(thinks(x), proj(x).clamp(0))


def test_step_6_is_the_gpt_of_the_model_room():
    """Weights moved over, the logits are the same: the ladder ends where Folio begins."""
    ours = build(STEPS[6])
    config = ModelConfig(
        vocab_size=11, context_length=6, n_layers=2, n_heads=3, d_model=12,
        activation="relu", tied_head=False,
    )  # fmt: skip
    theirs = GPT(config)
    with torch.no_grad():
        names = {"token_embedding": "token_embedding", "positions": "position_embedding"}
        for name, own in (names | {"lm_head": "lm_head"}).items():
            theirs.get_parameter(f"{name}.weight").copy_(ours.get_parameter(f"{own}.weight"))
        for i in range(2):
            block, other = ours.get_submodule(f"body.{i}"), theirs.get_submodule(f"blocks.{i}")
            assert isinstance(block, step6_layer_norm.Block) and isinstance(other, Block)
            copy_attention(block.attention, other.attention)
            for part in ("attention_norm", "feed_forward", "feed_forward_norm"):
                other.get_submodule(part).load_state_dict(block.get_submodule(part).state_dict())
        theirs.final_norm.load_state_dict(ours.get_submodule("body.2").state_dict())
        x = tokens(2, 5)
        # What no setting of the model room changes: the course's head has a bias.
        torch.testing.assert_close(ours(x), theirs(x) + ours.get_parameter("lm_head.bias"))


def copy_attention(ours: Attention, theirs: attention.Attention) -> None:
    """Heads that stand side by side are the rows of one matrix; theirs has biases besides."""
    projections = ("q_proj", "k_proj", "v_proj")
    rows = [getattr(head, name).weight for name in projections for head in ours.heads.heads]
    with torch.no_grad():
        theirs.qkv_proj.weight.copy_(torch.cat(rows))
        theirs.qkv_proj.bias.zero_()
        theirs.out_proj.load_state_dict(ours.out_proj.state_dict())


def test_parameters_are_as_counted_by_hand():
    v, t, c = 67, 8, 32  # tiny Shakespeare's ids, with the two special ones
    embeddings = v * c + t * c + c * v + v
    heads, linear = 3 * c * c, c * c + c
    block = heads + linear + (c * 4 * c + 4 * c) + (4 * c * c + c)
    expected = [
        v * v,
        embeddings + heads,
        embeddings + heads,
        embeddings + heads + linear,
        embeddings + 3 * (heads + linear),
        embeddings + 3 * block,
        embeddings + 3 * (block + 4 * c) + 2 * c,
    ]
    sizes = Sizes(vocab_size=v)
    counted = [sum(p.numel() for p in build_model(s, sizes).parameters()) for s in STEPS]
    assert counted == expected


@every_step
def test_each_file_fits_a_screen_and_names_its_source(step: Step):
    text = (FOLDER / f"{step.module}.py").read_text()
    assert step.source in text
    assert len(text.splitlines()) <= 70
    assert text.startswith(f'"""Step {step.number}: ')


@every_step
def test_the_first_loss_is_about_that_of_knowing_nothing(step: Step):
    torch.manual_seed(0)
    logits = build_model(step, Sizes(vocab_size=67))(torch.randint(0, 67, (32, 8)))
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), torch.randint(0, 67, (256,)))
    # Weights of size 1 in the table, torch's usual ones elsewhere: a little above ln V, not below.
    assert math.log(67) - 0.05 < loss.item() < math.log(67) + 0.8
