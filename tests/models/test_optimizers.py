"""The optimizers of the small models: the rates over the steps, what is apart, Muon's matrices."""

from __future__ import annotations

import math

import torch

from vitruvius.models.optimizers import adamw, muon, one_thread, rate_share
from vitruvius.models.zoo.mpcvit import MpcVit
from vitruvius.models.zoo.mpcvit_config import MpcVitConfig


def model() -> MpcVit:
    torch.manual_seed(0)
    return MpcVit(MpcVitConfig(image_size=(8, 8), channels=1, dim=8, depth=1, heads=2))


def test_rates_rise_in_the_warm_up_and_end_at_zero() -> None:
    shares = [rate_share(step, 100, 10) for step in range(101)]
    assert shares[:10] == [(step + 1) / 10 for step in range(10)]
    assert shares[10] == 1 and abs(shares[100]) < 1e-12
    assert math.isclose(shares[55], 0.5) and shares[10:] == sorted(shares[10:], reverse=True)


def test_every_parameter_is_in_one_group() -> None:
    module = model()
    apart = [module.cls_token]
    for optimizers in (adamw(module, apart), muon(module, apart)):
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        held = [id(part) for group in groups for part in group["params"]]
        assert sorted(held) == sorted(id(part) for part in module.parameters())
        (alone,) = [g for g in groups if any(part is module.cls_token for part in g["params"])]
        assert alone["weight_decay"] == 0.0 and len(alone["params"]) == 1
    (plain,) = adamw(module)
    assert len(plain.param_groups) == 1


def test_muon_has_the_matrices_of_the_blocks() -> None:
    module = model()
    _, last = muon(module)
    names = {id(part): name for name, part in module.named_parameters()}
    got = sorted(names[id(part)] for part in last.param_groups[0]["params"])
    assert got == [
        f"blocks.0.{name}.weight" for name in ("attn.proj", "attn.qkv", "mlp.fc1", "mlp.fc2")
    ]


def test_one_thread_gives_back_what_was() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
