"""The zoo's convolutional encoder, language model and scan: sizes, tracing, decode and prefill."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vitruvius.errors import VitruviusError
from vitruvius.models.caches import cached_inputs
from vitruvius.models.graph import execute_all, violations
from vitruvius.models.grouped_queries import shared_groups
from vitruvius.models.quantize import quantize
from vitruvius.models.resolve import resolve_model, zoo_entry
from vitruvius.models.trace import TraceError, trace, trace_shapes
from vitruvius.models.zoo.language import HybridLanguageModel
from vitruvius.models.zoo.network_file import NETWORKS, load_network_file


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_counted_parameters_are_those_of_the_module(name: str) -> None:
    entry = NETWORKS[name]
    with torch.device("meta"):
        module = entry.build()
    assert sum(p.numel() for p in module.parameters()) == entry.config.parameters


def test_sizes_are_the_published_ones() -> None:
    # LFM2-1.2B has 1.17 B parameters, its attention 12,288 bytes a token and its convolutions
    # 81,920 bytes at 16 bits; a layer list with one attention more or less would show here
    config = NETWORKS["lfm2_1.2b"].config
    assert round(config.parameters / 1e9, 2) == 1.17
    assert (2 * config.kv_values_per_token, 2 * config.state_values) == (12_288, 81_920)
    # "about 300 M parameters", fused to 16 x 16 x 2048
    with torch.device("meta"):
        encoder = NETWORKS["autoneural_encoder"].build().eval()
        assert encoder(torch.zeros(1, 3, 768, 768)).shape == (1, 2048, 16, 16)
    assert round(NETWORKS["autoneural_encoder"].config.parameters / 1e6) == 294


def _tiny() -> HybridLanguageModel:
    module = resolve_model("lfm2_tiny").module
    assert isinstance(module, HybridLanguageModel)
    return module


def test_decode_token_by_token_gives_the_logits_of_prefill() -> None:
    # a rotary position that starts at 0 in decode, or a convolution state off by one, shows here
    module = _tiny()
    tokens = torch.randint(128, (1, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = module(tokens)[0]
        logits, *state = module(tokens[:, :1])
        for place in range(1, 9):
            logits, *state = module(tokens[:, place : place + 1], *state)
    assert torch.allclose(logits, whole, atol=1e-5)


def test_prefill_in_pieces_gives_the_logits_of_prefill() -> None:
    """A mask that forgets the kept tokens, or that lets a piece look ahead, shows here."""
    module = _tiny()
    tokens = torch.randint(128, (1, 9), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        whole = module(tokens)[0]
        _, *state = module(tokens[:, :4])
        graph = trace(module, (tokens[:, 4:], *state), name="piece")
        assert torch.allclose(module(tokens[:, 4:], *state)[0], whole, atol=1e-5)
        assert torch.allclose(execute_all(graph, tokens[:, 4:], *state)[0], whole, atol=1e-5)


def test_graphs_of_prefill_and_decode_give_what_the_module_gives() -> None:
    module = _tiny()
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(128, (1, 8), generator=generator)
    prefill = trace(module, (tokens[:, :7],), name="prefill")
    with torch.no_grad():
        expected = module(tokens)[0]
        state = execute_all(prefill, tokens[:, :7])[1:]
        decode = trace(module, (tokens[:, 7:], *state), name="decode")
        logits = execute_all(decode, tokens[:, 7:], *state)[0]
    assert torch.allclose(logits, expected, atol=1e-5)
    assert not violations(prefill) and not violations(decode)


def test_decode_appends_to_caches_and_shares_keys_among_heads() -> None:
    module = _tiny()
    graph = trace(module, module.inputs(1, 16), name="decode")
    # copies of the keys for every head would make the scores read 4 x 17 x 16 values, not 2 x
    assert [op.output.shape for op in cached_inputs(graph)] == [
        (1, 64, 2),
        (1, 2, 16, 16),
        (1, 2, 16, 16),
        (1, 64, 2),
        (1, 2, 16, 16),
        (1, 2, 16, 16),
    ]
    assert [(r.heads, r.kv_heads, r.windows, r.keys) for r in graph.regions] == [(4, 2, 1, 17)] * 2
    assert shared_groups(graph.operator, graph.operator(graph.regions[0].apply).inputs[1]) == 2


def test_transformers_lfm2_is_raised_to_the_same_operators() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Lfm2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        block_auto_adjust_ff_dim=False,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention", "conv"],
    )
    config._attn_implementation = "eager"

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.model = transformers.Lfm2ForCausalLM(config)

        def forward(self, tokens: Tensor) -> Tensor:
            out: Tensor = self.model(tokens, use_cache=False).logits
            return out

    graph = trace(Logits().eval(), (torch.zeros(1, 10, dtype=torch.int64),), name="theirs")
    (region,) = graph.regions
    assert (region.heads, region.kv_heads, region.tokens) == (4, 2, 10)
    kinds = [op.kind for op in graph.operators()]
    assert kinds.count("Conv2d") == 2 and kinds.count("Silu") == 3 and not graph.unmapped
    assert kinds.count("RmsNorm") == 9  # two a layer, the last one, queries and keys


class _Repeats(nn.Module):
    """Grouped queries as people write them with ``repeat_interleave``."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = k.repeat_interleave(3, 1), v.repeat_interleave(3, 1)
        return (q @ k.transpose(-1, -2) / 4).softmax(-1) @ v


def test_repeated_entries_are_grouped_queries() -> None:
    shapes = ((2, 6, 5, 16), (2, 2, 7, 16), (2, 2, 7, 16))
    inputs = tuple(torch.rand(shape) for shape in shapes)
    graph = trace(_Repeats(), inputs, name="repeats")
    (region,) = graph.regions
    assert (region.heads, region.kv_heads) == (6, 2)
    assert not [op for op in graph.operators() if op.kind == "Index"]
    # the other order of heads (0, 1, 0, 1, ...) is no group of neighbours and must stay a copy
    order = torch.tensor([0, 1, 0, 1, 0, 1])

    class Tiled(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return (q @ k[:, order].transpose(-1, -2)).softmax(-1) @ v[:, order]

    (region,) = trace(Tiled(), inputs, name="tiled").regions
    assert region.kv_heads == 0


def test_heads_with_masks_of_their_own_may_share_keys() -> None:
    bias = torch.rand(1, 6, 5, 7)

    class Biased(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            k, v = k.repeat_interleave(3, 1), v.repeat_interleave(3, 1)
            return (q @ k.transpose(-1, -2) + bias).softmax(-1) @ v

    inputs = tuple(torch.rand(1, *shape) for shape in ((6, 5, 16), (2, 7, 16), (2, 7, 16)))
    (region,) = trace(Biased(), inputs, name="biased").regions
    assert (region.heads, region.kv_heads) == (6, 2)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("written", ["enable_gqa", "expand", "repeat"])
def test_grouped_queries_are_quantized_like_any_others(groups: int, written: str) -> None:
    """The integer model reads through the views; a rewrite of the axes would refuse these."""
    torch.manual_seed(0)

    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 32, 4, 4)
            self.cls = nn.Parameter(torch.zeros(1, 1, 32))
            self.place = nn.Parameter(torch.randn(1, 5, 32) * 0.02)
            self.norm, self.q, self.out = nn.LayerNorm(32), nn.Linear(32, 32), nn.Linear(32, 32)
            self.k, self.v = nn.Linear(32, 8 * groups), nn.Linear(32, 8 * groups)
            self.last, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.patches(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.place
            y = self.norm(x)
            q, k, v = (
                part(y).reshape(x.shape[0], 5, -1, 8).transpose(1, 2)
                for part in (self.q, self.k, self.v)
            )
            if written == "repeat":
                k, v = (part.repeat_interleave(4 // groups, 1) for part in (k, v))
            elif written == "expand":
                shape = (x.shape[0], groups, 4 // groups, 5, 8)
                k, v = (part[:, :, None].expand(shape).reshape(-1, 4, 5, 8) for part in (k, v))
            attend = nn.functional.scaled_dot_product_attention
            mixed = attend(q, k, v, enable_gqa=written == "enable_gqa")
            x = x + self.out(mixed.transpose(1, 2).reshape(x.shape[0], 5, 32))
            return self.head(self.last(x)[:, 0])

    module, images = Grouped().eval(), torch.rand(8, 3, 8, 8)
    graph = trace(module, (images[:1],), name="grouped")
    assert [(region.heads, region.kv_heads) for region in graph.regions] == [(4, groups)]
    with torch.no_grad():
        expected = module(images)
    got = quantize(graph, images).logits(images)
    assert float((got - expected).abs().max()) < 0.05 * float(expected.abs().max())


@pytest.mark.parametrize("name", ["lfm2_tiny", "autoneural_encoder_tiny", "vit_tiny_patch16_224"])
def test_shapes_alone_give_the_graph_of_the_values(name: str) -> None:
    workload = resolve_model(name)
    real = trace(workload.module, workload.example_inputs, name=name)
    entry = zoo_entry(name)
    assert entry is not None
    with torch.device("meta"):  # moved there later, tied weights would be two
        module, inputs = entry.build(), entry.example_inputs()
    meta = trace_shapes(module, inputs, name=name)
    assert [(op.kind, op.output, op.macs, op.params) for op in meta.operators()] == [
        (op.kind, op.output, op.macs, op.params) for op in real.operators()
    ]
    assert [(r.heads, r.kv_heads, r.keys) for r in meta.regions] == [
        (r.heads, r.kv_heads, r.keys) for r in real.regions
    ]


def test_a_large_model_is_traced_without_memory_for_its_weights() -> None:
    workload = resolve_model("lfm2_1.2b", shapes=True)
    assert all(parameter.is_meta for parameter in workload.module.parameters())
    graph = trace_shapes(workload.module, workload.example_inputs, name="large")
    assert sum(op.params for op in graph.operators()) == NETWORKS["lfm2_1.2b"].config.parameters


def test_values_where_shapes_are_expected_are_refused() -> None:
    module = nn.Linear(2, 2)
    with pytest.raises(TraceError, match="on the meta device, got"):
        trace_shapes(module, (torch.zeros(1, 2),), name="x")
    with pytest.raises(TraceError, match="weight has values"):
        trace_shapes(module, (torch.zeros(1, 2, device="meta"),), name="x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('kind = "conv"\n', "kind 'conv': .*conv_encoder"),
        ('kind = "language"\n[model]\ndim = 4\n', "model.vocabulary: Field required"),
        (
            'kind = "conv_encoder"\n[model]\nstages = [["uir k4 s2 e4 c16"]]\n',
            "block 'uir k4 s2 e4 c16': no start",
        ),
        (
            'kind = "conv_encoder"\n[model]\nstages = [["er k3 s2 e4 x16"]]\n',
            "'x16' is not one of k<kernel>",
        ),
        (
            'kind = "scan"\nsize = 1\n[model]\ndim = 4\ndepth = 1\nstate = 1\ntokens = 2\n',
            "size: is not a field",
        ),
    ],
)
def test_a_wrong_network_file_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(VitruviusError, match=message):
        load_network_file(path)
    with pytest.raises(VitruviusError, match=message):
        resolve_model(str(path))
