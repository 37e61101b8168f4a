"""Bias correction: the mean error goes, and what is not there is not corrected."""

from __future__ import annotations

import pytest
import torch

from vitruvius.models.bias_correction import correct_biases
from vitruvius.models.calibration import observe
from vitruvius.models.comparison import measure
from vitruvius.models.graph import execute
from vitruvius.models.integer_model import IntegerModel
from vitruvius.models.lowering import Lowering
from vitruvius.models.quantization_options import QuantizationOptions
from vitruvius.models.weight_codes import encode_weights


@pytest.fixture(scope="module")
def lowered(digits_graph, digit_images):
    """vit_digits with 4-bit weights, nearest codes, and no correction yet."""
    images = digit_images.calibration_images
    options = QuantizationOptions(weight_bits=4)
    codes = encode_weights(digits_graph, images, 4)
    lowering = Lowering(digits_graph, observe(digits_graph, images), options, codes)
    lowering.run()
    model = IntegerModel("digits", tuple(lowering.emitted), lowering.tensors)
    return model, lowering.products


def mean_error(model, graph, images, layer="blocks.3.mlp.fc2"):
    """Mean over images and tokens of integer minus float output, by feature."""
    seen = {}
    execute(graph, images, observe=lambda op, value: seen.update({op.name: value}))
    codes = {}
    model.run(images, observe=lambda op, value: codes.update({op.name: value}))
    return (codes[layer] * model.operator(layer).scale - seen[layer]).mean((0, 1))


def test_the_mean_error_of_every_feature_goes(lowered, digits_graph, digit_images):
    model, products = lowered
    images = digit_images.calibration_images
    fixed = correct_biases(model, digits_graph, images, products)
    before = mean_error(model, digits_graph, images).abs().mean()
    after = mean_error(fixed, digits_graph, images).abs().mean()
    assert after < 0.2 * before, (float(before), float(after))
    # And on images that it was not made from.
    test = digit_images.test_images[:128]
    before = mean_error(model, digits_graph, test).abs().mean()
    assert mean_error(fixed, digits_graph, test).abs().mean() < 0.7 * before


def test_only_biases_change(lowered, digits_graph, digit_images):
    model, products = lowered
    fixed = correct_biases(model, digits_graph, digit_images.calibration_images[:32], products)
    assert fixed.operators == model.operators
    changed = {
        key for key, tensor in model.tensors.items() if not torch.equal(tensor, fixed.tensors[key])
    }
    assert changed
    assert all(key.endswith(".bias") for key in changed)


def test_one_image_corrects_nothing(lowered, digits_graph, digit_images):
    """Its mean error says nothing about that of others."""
    model, products = lowered
    fixed = correct_biases(model, digits_graph, digit_images.calibration_images[:1], products)
    assert all(torch.equal(fixed.tensors[key], model.tensors[key]) for key in model.tensors)


def test_its_quality_is_that_of_the_corrected_model(lowered, digits_graph, digit_images):
    """Measured on the way, and again from the finished model."""
    model, products = lowered
    images = digit_images.calibration_images[:48]
    fixed = correct_biases(model, digits_graph, images, products)
    assert fixed.quality == measure(fixed, digits_graph, images, products).quality
