"""The parameters of a model, side by side."""

from __future__ import annotations

import torch

from folio.testing import tiny_gpt
from folio.training.groups import parameter_groups
from folio.training.parallel.flat_parameters import FlatParameters


def test_every_parameter_is_in_one_group_and_the_model_sees_its_changes():
    model = tiny_gpt(tied_head=False)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    flat = FlatParameters(model)
    assert sum(group.numel() for group in flat.groups.values()) == len(flat.master)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    for group, members in parameter_groups(model).items():
        with torch.no_grad():
            flat.groups[group].fill_(3.0)
        assert all((p == 3.0).all() for p in members.values())
    assert (flat.master == 3.0).all()


def test_compute_weights_lie_as_the_master_weights_do():
    flat = FlatParameters(tiny_gpt(), torch.bfloat16)
    hidden = flat.groups["hidden"].data
    assert torch.equal(flat.compute_weights_of(hidden), hidden.bfloat16())
    assert torch.equal(flat.compute, flat.master.bfloat16())
    assert len(FlatParameters(tiny_gpt()).compute_weights_of(hidden)) == 0, "one and the same"
