"""The golden of scheme `ivit`, faithful mode, against the published rules in float64, which were
written from their description alone (`benchmarks/ivit_published.py`), tensor by tensor.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vitruvius.benchmarks.ivit_published import PublishedDeit
from vitruvius.models.datasets import photographs
from vitruvius.models.integer_model import IntegerModel
from vitruvius.models.quantization_options import QuantizationOptions
from vitruvius.models.quantize import quantize
from vitruvius.models.trace import trace
from vitruvius.models.zoo import ZOO
from vitruvius.models.zoo.vit import VisionTransformer, VisionTransformerConfig

PLAIN = QuantizationOptions(
    scheme="ivit", ivit_mode="faithful", equalise=False, bias_correction=False
)
EMBEDDED = "add"


def unlike_at_the_start(module: nn.Module) -> nn.Module:
    """``module`` with norms of either sign and biases, which initial ones do not have. No bias of a
    norm is more than three times its gain: the golden saturates at 2 sqrt(C), the published rules
    have no such place.
    """
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.rand(parameter.shape, generator=draw)
            if "norm" in name and name.endswith("weight"):
                parameter.copy_((0.4 + noise) * torch.where(noise > 0.1, 1, -1))
            elif name.endswith("bias"):
                parameter.copy_(noise - 0.5)
    return module.eval()


def compared(module: nn.Module, images: Tensor) -> tuple[IntegerModel, dict[str, Tensor]]:
    """The golden of ``module``, and its codes on the last image once they were compared."""
    example, last = images[:1], images[-1:]
    model = quantize(trace(module, (example,), name="deit"), images[:-1], options=PLAIN)
    codes: dict[str, Tensor] = {}
    model.run(last, lambda operator, found: codes.update({operator.name: found}))

    alone = PublishedDeit(module.state_dict(), model, given=codes)
    alone.run(last)
    for name, found in alone.codes.items():
        differing = int((found != codes[name]).sum())
        if name == EMBEDDED:
            # The golden rounds constant tokens once, at the sum's scale; the published code rounds
            # them and their positions at scales of their own.
            assert int((found - codes[name]).abs().max()) <= 1
        else:
            assert differing == 0, (name, differing)

    chain = PublishedDeit(module.state_dict(), model, given={EMBEDDED: codes[EMBEDDED]})
    logits = chain.run(last)
    for name, found in chain.codes.items():
        assert name == EMBEDDED or torch.equal(found, codes[name].double()), name
    assert torch.allclose(logits, model.logits(last), rtol=0, atol=float(logits.abs().max()) / 1e5)
    kinds = {model.operator(name).kind for name in chain.codes}
    assert kinds == {
        "Linear31", "Embed31", "ILayerNorm", "ShiftAttention", "Add31", "ShiftGelu",
    }  # fmt: skip
    return model, codes


def test_a_small_encoder_is_the_published_one_to_the_bit() -> None:
    """Every operator on the golden's own codes, and all of them behind each other."""
    config = VisionTransformerConfig(
        image_size=48, patch_size=8, channels=3, classes=10, dim=96, depth=3, heads=3
    )
    torch.manual_seed(1)
    module = unlike_at_the_start(VisionTransformer(config))
    compared(module, photographs(4, (48, 48)))


@pytest.mark.slow
def test_deit_tiny_is_the_published_one_and_the_int64_one_to_the_bit() -> None:
    """All tensors of all 12 blocks on a photograph that did not calibrate."""
    torch.manual_seed(1)
    module = unlike_at_the_start(ZOO["deit_tiny_patch16_224"].build())
    images = photographs(5, (224, 224))
    model, codes = compared(module, images)
    equal = []

    def look(operator, found: Tensor) -> None:
        equal.append(operator.name)
        assert torch.equal(found, codes[operator.name]), operator.name

    model.run(images[-1:], look, reference=True)
    assert len(equal) == len(model.operators) > 12 * 12
