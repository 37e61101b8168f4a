"""Measures of attention against attentions whose values are known, and fixed attention."""

from __future__ import annotations

import math

import pytest
import torch

from vitruvius.errors import VitruviusError
from vitruvius.models.attention_measures import (
    attention_maps,
    fixed_attention,
    mask_shares,
    measures,
    overlap,
    rollout,
    uniform_measures,
)
from vitruvius.models.graph import Graph, execute, violations
from vitruvius.models.trace import trace
from vitruvius.models.zoo.mpcvit import MpcVit
from vitruvius.models.zoo.mpcvit_config import MpcVitConfig
from vitruvius.models.zoo.vit import VisionTransformer, VisionTransformerConfig

SEED = 3


@pytest.fixture(scope="module")
def module() -> VisionTransformer:
    sizes = {"image_size": 8, "patch_size": 4, "channels": 1, "classes": 3}
    sizes |= {"dim": 16, "depth": 2, "heads": 2, "mlp_ratio": 1}
    torch.manual_seed(SEED)
    module = VisionTransformer(VisionTransformerConfig.model_validate(sizes)).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.5)
    return module


@pytest.fixture(scope="module")
def graph(module: VisionTransformer) -> Graph:
    return trace(module, (torch.zeros(1, 1, 8, 8),), name="small")


def shown(count: int = 5) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(SEED))


def test_uniform_attention_has_its_values() -> None:
    # two tokens 8 pixels apart and the class token: rows of 1/3; distances 0, 8, 8, 0
    found = measures(torch.full((2, 4, 3, 3), 1 / 3), (1, 2), 8, top=2)
    expected = uniform_measures(3, (1, 2), 8, top=2)
    for got in (found, expected):
        assert got.entropy == pytest.approx(1)
        assert got.distance_pixels == pytest.approx(4)
        assert got.top_share == pytest.approx(2 / 3)
        assert got.variation == pytest.approx(0, abs=1e-7)


def test_measures_of_weights_written_by_hand() -> None:
    rows = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.1, 0.4], [0.0, 1.0, 0.0]])
    found = measures(rows.expand(3, 1, 3, 3), (2, 1), 4, top=1)
    middle = -(0.5 * math.log(0.5) + 0.1 * math.log(0.1) + 0.4 * math.log(0.4))
    assert found.entropy == pytest.approx((math.log(2) + middle) / 3 / math.log(3))
    # the second token's 0.4 of 0.5 lie on the third, the third's all on the second, 4 pixels away
    assert found.distance_pixels == pytest.approx((0.8 * 4 + 4) / 2)
    assert found.top_share == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert found.variation == 0


def test_distances_are_along_rows_and_columns() -> None:
    """From every token of 2 x 3 to the last one, tokens row by row."""
    weights = torch.zeros(1, 1, 7, 7)
    weights[..., 6] = 1
    found = measures(weights, (2, 3), 10).distance_pixels
    places = [(row, column) for row in range(2) for column in range(3)]
    assert found == pytest.approx(sum(10 * math.dist(place, (1, 2)) for place in places) / 6)


def test_variation_is_between_images() -> None:
    """Half the images attend to one token and half to the other: each is 1/2 from the mean."""
    one, other = torch.tensor([1.0, 0.0]).expand(2, 2), torch.tensor([0.0, 1.0]).expand(2, 2)
    maps = torch.stack([one, other])[:, None]
    assert measures(maps, (1, 1), 8, top=1).variation == pytest.approx(0.5)


def test_rollout_multiplies_the_layers() -> None:
    generator = torch.Generator().manual_seed(SEED)
    maps = torch.rand(3, 2, 2, 4, 4, generator=generator).softmax(-1)
    found = rollout(maps)
    for image in range(2):
        total = torch.eye(4, dtype=torch.float64)
        for layer in range(3):
            mean = (maps[layer, image, 0] + maps[layer, image, 1]).double() / 2
            total = (0.5 * mean + 0.5 * torch.eye(4)) @ total
        torch.testing.assert_close(found[image], total[0, 1:] / total[0, 1:].sum())


def test_the_second_layer_reads_what_the_first_has_mixed() -> None:
    """Layer 1 moves token 2 to token 1, layer 2 token 1 to the class token: part of 2 arrives."""
    first, second = torch.eye(3), torch.eye(3)
    first[1] = torch.tensor([0.0, 0.0, 1.0])
    second[0] = torch.tensor([0.0, 1.0, 0.0])
    shares = rollout(torch.stack([first, second])[:, None, None])
    torch.testing.assert_close(shares[0], torch.tensor([0.5, 0.5], dtype=torch.float64))


def test_masks_lie_in_the_middle_of_the_plane() -> None:
    mask = torch.zeros(1, 1, 4, 4)
    mask[0, 0, 0, :] = 1  # row 1 of a plane of 6: columns 1 to 4 of the first row of 3 x 3 tokens
    shares = mask_shares(mask, 6, 3)
    torch.testing.assert_close(shares[0], torch.tensor([0.5, 0.5, 0, 0], dtype=torch.float64))
    mask = torch.zeros(1, 1, 4, 4)
    mask[0, 0, 1:3, 3] = 1  # rows 2 and 3, column 4
    shares = mask_shares(mask, 6, 3)
    torch.testing.assert_close(shares[0], torch.tensor([0, 0.5, 0, 0.5], dtype=torch.float64))


def test_overlap_is_one_for_the_object_and_none_beside_it() -> None:
    objects = torch.tensor([[0.25, 0.75, 0, 0], [0, 0, 0.5, 0.5]])
    assert overlap(objects, objects) == pytest.approx(1)
    assert overlap(objects.flip(0), objects) == 0
    assert overlap(torch.full((2, 4), 0.25), objects) == pytest.approx(0.5)


def test_maps_are_the_softmax_of_each_layer(module: VisionTransformer, graph: Graph) -> None:
    maps = attention_maps(graph, shown())
    assert maps.shape == (2, 5, 2, 5, 5)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 5, 2, 5))
    with torch.no_grad():
        tokens = module.blocks[0].norm1(module._embedded(shown()))
        q, k, _ = module.blocks[0].attn.qkv(tokens).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        expected = torch.softmax(q @ k.mT / math.sqrt(8), -1)
    torch.testing.assert_close(maps[0], expected, rtol=1e-4, atol=1e-5)


def test_attention_that_is_fixed_at_its_own_weights_changes_nothing(graph: Graph) -> None:
    image = shown(1)
    maps = attention_maps(graph, image)[:, 0]
    fixed = fixed_attention(graph, list(maps))
    assert not violations(fixed) and not fixed.regions
    torch.testing.assert_close(execute(fixed, image), execute(graph, image), rtol=1e-4, atol=1e-4)
    # nothing makes queries and keys any more; values are still made
    assert not any(op.kind == "Softmax" for op in fixed.operators())
    one = fixed_attention(graph, [None, torch.full((2, 5, 5), 1 / 5)])
    assert not violations(one) and one.regions == graph.regions[:1]
    assert not torch.allclose(execute(one, image), execute(graph, image), atol=1e-2)


def test_what_cannot_be_measured_is_refused(graph: Graph) -> None:
    with pytest.raises(VitruviusError, match="expected weights for each of 2 attentions, got 1"):
        fixed_attention(graph, [None])
    with pytest.raises(VitruviusError, match=r"expected weights \[2, 5, 5\] for .*got \[5, 5\]"):
        fixed_attention(graph, [torch.ones(5, 5), None])
    config = MpcVitConfig(image_size=(8, 8), channels=1, dim=8, depth=1, heads=2, attention="scale")
    without = trace(MpcVit(config), (torch.zeros(1, 1, 8, 8),), name="scaled")
    with pytest.raises(VitruviusError, match=r"scaled: expected attentions of one size.*got none"):
        attention_maps(without, shown())
