"""The relaxed model: its ends are the two kinds, every layer has its own alpha, nothing decays."""

from __future__ import annotations

import pytest
import torch

from vitruvius.models.optimizers import adamw, muon
from vitruvius.models.zoo.mpcvit import MpcVit
from vitruvius.models.zoo.mpcvit_config import MpcVitConfig
from vitruvius.sim.mpc.search.relaxation import alphas, betas, gates, relaxed

CONFIG = MpcVitConfig(image_size=(8, 8), patch_size=4, channels=1, dim=8, depth=12, heads=2)
IMAGES = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3))


def model(*, granularity: str = "head", plus: bool = False) -> MpcVit:
    torch.manual_seed(3)
    config = CONFIG.model_copy(update={"granularity": granularity})
    return relaxed(config, plus=plus).eval()


def plain(**fields: object) -> MpcVit:
    """The model of the same weights with a fixed architecture."""
    torch.manual_seed(3)
    module = MpcVit(MpcVitConfig.model_validate(CONFIG.model_dump() | fields)).eval()
    source = model(granularity=str(fields.get("granularity", "head"))).state_dict()
    module.load_state_dict({key: source[key] for key in module.state_dict()})
    return module


@pytest.mark.parametrize(
    ("granularity", "units"), [("layer", (0,)), ("head", (0, 1)), ("row", (0, 1, 2, 3, 4))]
)
def test_alphas_of_0_and_1_are_the_mixed_model(granularity: str, units: tuple[int, ...]) -> None:
    """Layer 10 and 11 hold what a match by a substring of "1" would have moved with layer 1."""
    kept = [()] * 12
    kept[1], kept[10], kept[11] = units, units[:1], units[-1:]
    module = model(granularity=granularity)
    assert alphas(module).shape == (12, len(units)) and (alphas(module) == 1).all()
    with torch.no_grad():
        for layer, alpha in enumerate(gates(module)):
            alpha.zero_()
            alpha.view(-1)[list(kept[layer])] = 1
        expected = plain(attention="mixed", granularity=granularity, relu_softmax=kept)(IMAGES)
        torch.testing.assert_close(module(IMAGES), expected, rtol=1e-5, atol=1e-6)


def test_betas_of_0_leave_the_activation_out() -> None:
    module = model(plus=True)
    assert betas(module).tolist() == [1.0] * 12 and len(gates(module)) == 24
    with torch.no_grad():
        whole = plain(attention="relu_softmax")(IMAGES)
        torch.testing.assert_close(module(IMAGES), whole, rtol=1e-5, atol=1e-6)
        gates(module)[12 + 11].zero_()
        names = ("gelu_tanh",) * 11 + ("linear",)
        expected = plain(attention="relu_softmax", activation=names)(IMAGES)
        torch.testing.assert_close(module(IMAGES), expected, rtol=1e-5, atol=1e-6)
    assert betas(model()).numel() == 0


def test_each_layer_has_its_own_alpha_by_the_modules_not_by_names() -> None:
    module = model()
    alphas(module)[11, 1].backward()
    grads = [
        (name, parameter.grad.flatten().tolist())
        for name, parameter in module.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    ]
    assert grads == [("blocks.11.attn.alpha", [0.0, 1.0])]


@pytest.mark.parametrize("prepare", [adamw, muon])
def test_without_gradient_alphas_stay_to_the_bit(prepare: object) -> None:
    """AdamW's weight decay would shrink them; the weights beside them do shrink."""
    assert callable(prepare)
    module = model(plus=True)
    optimizers = prepare(module, gates(module))
    with torch.no_grad():
        for gate in gates(module):
            gate.fill_(0.7)
    before = module.head.weight.detach().clone()
    for _ in range(50):
        for parameter in module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        for optimizer in optimizers:
            optimizer.step()
    assert all((gate == torch.tensor(0.7)).all() for gate in gates(module))
    torch.testing.assert_close(module.head.weight, before * (1 - 1e-3 * 0.05) ** 50)
    held = [p for o in optimizers for group in o.param_groups for p in group["params"]]
    assert len(held) == len({id(p) for p in held}) == len(list(module.parameters()))
