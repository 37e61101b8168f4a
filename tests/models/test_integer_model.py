"""The fast integer model against plain int64, and the bounds that make it exact."""

from __future__ import annotations

import pytest
import torch

from vitruvius.errors import VitruviusError
from vitruvius.models.integer_model import IntegerModel, IntegerOperator
from vitruvius.models.quantization_options import QuantizationOptions
from vitruvius.models.quantize import quantize
from vitruvius.models.trace import trace
from vitruvius.models.zoo.vit import VisionTransformer, VisionTransformerConfig

PLAIN = QuantizationOptions(equalise=False, bias_correction=False)


@pytest.fixture(scope="module")
def wide_model():
    """Two blocks as wide as DeiT-Tiny's on 37 tokens, random weights."""
    config = VisionTransformerConfig(
        image_size=96, patch_size=16, channels=3, classes=10, dim=192, depth=2, heads=3
    )
    torch.manual_seed(5)
    module = VisionTransformer(config).eval()
    images = torch.rand(2, 3, 96, 96)
    return quantize(trace(module, (images[:1],), name="wide"), images, options=PLAIN)


def everything(model, images, *, reference):
    seen = {}
    model.run(
        images, lambda operator, codes: seen.update({operator.name: codes}), reference=reference
    )
    return seen


def assert_same(model, images):
    """Every tensor, not only the last: an error that a saturation hides is an error."""
    fast, plain = (everything(model, images, reference=flag) for flag in (False, True))
    for name, codes in plain.items():
        assert fast[name].dtype == torch.int64
        assert torch.equal(fast[name], codes), name


def test_vit_digits_equals_plain_int64(digits_model, digit_images):
    assert_same(digits_model, digit_images.test_images[:64])


def test_deit_tiny_size_equals_plain_int64(wide_model):
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(6))
    assert_same(wide_model, images)


def test_images_far_outside_the_calibration_saturate_alike(wide_model):
    """Everything saturates somewhere: the clamps of both ways must agree."""
    images = 50 * torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(7))
    assert_same(wide_model, images)


def test_threads_and_the_split_of_a_batch_do_not_matter(wide_model, monkeypatch):
    images = torch.rand(5, 3, 96, 96, generator=torch.Generator().manual_seed(8))
    together = wide_model.run(images)
    alone = torch.cat([wide_model.run(image.unsqueeze(0)) for image in images])
    assert torch.equal(alone, together)
    monkeypatch.setattr(wide_model._plan, "_images_per_pass", 2)
    assert torch.equal(wide_model.run(images), together)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 if threads != 3 else 2)
        assert torch.equal(wide_model.run(images), together)
    finally:
        torch.set_num_threads(threads)


def linear(weight, bias, *, bits=8, multiplier=1 << 15, shift=15):
    """A model of two operators: 2 x 2 patches of a grey image, and one Linear."""
    outputs = len(weight)
    tensors = {
        "w": weight,
        "b": torch.tensor(bias, dtype=torch.int32),
        "m": torch.full((outputs,), multiplier, dtype=torch.int32),
        "s": torch.full((outputs,), shift, dtype=torch.uint8),
    }
    image = {"channels": 1, "height": 64, "width": 64, "patch": 64}
    operators = (
        IntegerOperator("x", "Quantize", (), (1, 4096), bits, 1.0, attributes=image),
        IntegerOperator(
            "fc",
            "Linear",
            ("x",),
            (1, outputs),
            16,
            1.0,
            tensors={"weight": "w", "bias": "b", "multiplier": "m", "shift": "s"},
        ),
    )
    return IntegerModel("one", operators, tensors)


def test_a_sum_beyond_float32_keeps_its_last_bit():
    """4096 * 127 * 127 + 1 is odd and needs 27 bits."""
    weight = torch.full((1, 4096), 127, dtype=torch.int8)
    model = linear(weight, [1 - 4096 * 127 * 127])
    assert model.run(torch.full((1, 1, 64, 64), 127.0)).item() == 1
    assert model.run(torch.full((1, 1, 64, 64), 127.0), reference=True).item() == 1


def test_the_bound_of_a_product_is_reached_and_not_passed():
    weight = torch.full((1, 4096), -128, dtype=torch.int8)
    model = linear(weight, [12345])
    row = next(row for row in model.accumulator_bounds() if row.what == "an accumulator")
    assert (row.operator, row.bound) == ("fc", 4096 * 128 * 128 + 12345)
    assert row.limit == (1 << 31) - 1
    narrow = linear(weight, [12345], bits=4)
    row = next(row for row in narrow.accumulator_bounds() if row.what == "an accumulator")
    assert row.bound == 4096 * 128 * 8 + 12345


def test_an_accumulator_that_can_leave_32_bits_is_refused_by_name():
    weight = torch.full((1, 4096), -128, dtype=torch.int8)
    with pytest.raises(VitruviusError, match=r"fc: an accumulator can reach 2214592511, limit"):
        linear(weight, [(1 << 31) - 1])


def test_every_operator_that_accumulates_has_bounds_within_its_limits(wide_model):
    rows = wide_model.accumulator_bounds()
    assert all(0 < row.bound <= row.limit for row in rows)
    named = {row.operator for row in rows}
    silent = {operator.kind for operator in wide_model.operators if operator.name not in named}
    assert silent == {"Quantize", "Select"}


def test_bounds_hold_for_the_largest_sums_that_occur(wide_model):
    """Measured sums of LayerNorm's squares and of attention's weights stay below their bounds."""
    bounds = {(row.operator, row.what): row.bound for row in wide_model.accumulator_bounds()}
    images = 50 * torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(9))
    seen = everything(wide_model, images, reference=False)
    checked = 0
    for operator in wide_model.operators:
        if operator.kind == "LayerNorm":
            x = seen[operator.inputs[0]]
            assert int((x * x).sum(-1).max()) <= bounds[operator.name, "a sum of squares"]
            assert int(x.sum(-1).abs().max()) <= bounds[operator.name, "a sum"]
            checked += 1
        if operator.kind == "Linear":
            x = seen[operator.inputs[0]]
            weight = wide_model.tensors[operator.tensors["weight"]].to(torch.int64)
            assert int((x @ weight.t()).abs().max()) <= bounds[operator.name, "an accumulator"]
            checked += 1
    assert checked > 10


@pytest.mark.parametrize("bits", [6, 4])
def test_narrow_codes_saturate_at_their_own_width(bits, digits_graph, digit_images):
    options = PLAIN.model_copy(update={"activation_bits": bits, "weight_bits": bits})
    model = quantize(digits_graph, digit_images.calibration_images[:32], options=options)
    images = digit_images.test_images[:16]
    top = (1 << (bits - 1)) - 1
    kinds = set()
    for name, codes in everything(model, images, reference=False).items():
        operator = model.operator(name)
        if operator.bits == bits:
            kinds.add(operator.kind)
            assert int(codes.max()) <= top, name
            assert int(codes.min()) >= -top - 1, name
    assert kinds == {"LayerNorm", "Linear", "Attention", "Gelu", "Select"}
    for operator in model.operators:
        if operator.kind == "Linear":
            codes = model.tensors[operator.tensors["weight"]]
            assert int(codes.abs().max()) <= top
    assert_same(model, images)


def test_a_model_that_ends_in_tokens_gives_all_of_them():
    config = VisionTransformerConfig(
        image_size=8, patch_size=4, channels=1, classes=0, dim=8, depth=1, heads=2, final_norm=False
    )
    torch.manual_seed(11)
    module = VisionTransformer(config).eval()
    images = torch.rand(4, 1, 8, 8)
    model = quantize(trace(module, (images[:1],), name="tokens"), images, options=PLAIN)
    assert model.run(images).shape == (4, 5, 8)
    assert model.operators[-1].kind == "Add"
