"""ConvShareViT in the zoo: its algebra against PyTorch's own layers, tracing, sizes that close."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vitruvius.errors import VitruviusError
from vitruvius.models.graph import execute
from vitruvius.models.resolve import resized, resolve_model
from vitruvius.models.trace import trace
from vitruvius.models.weights import save_weights
from vitruvius.models.zoo.convshare import ConvShareVit, PlaneMap
from vitruvius.models.zoo.convshare_config import ConvShareConfig
from vitruvius.models.zoo.model_file import DATASETS
from vitruvius.models.zoo.network_file import NETWORKS, load_network_file
from vitruvius.optical.convolution import Conv4f

SEED = 11
# 13 pixels to 16 x 16: 16 tokens of 4 x 4 and the class token
SMALL = {
    "image_size": 13,
    "plane_size": 16,
    "token_side": 4,
    "channels": 2,
    "stem_channels": 3,
    "classes": 5,
    "depth": 2,
    "heads": 3,
}
VARIANTS: dict[str, dict[str, object]] = {
    "linear": {"variant": "linear"},
    "shared_valid_full": {"variant": "shared_valid_full"},
    "shared_valid_k": {"variant": "shared_valid_k", "kernel": 3},
    "shared_same": {"variant": "shared_same", "kernel": 3},
    "shared_same, 2 kernels": {"variant": "shared_same", "kernel": 3, "kernels": 2},
    "shared_same, even": {"variant": "shared_same", "kernel": 2},
    "depthwise_same": {"variant": "depthwise_same", "kernel": 3},
}


def config(name: str, **fields: object) -> ConvShareConfig:
    return ConvShareConfig.model_validate(SMALL | VARIANTS[name] | fields)


def built(name: str, **fields: object) -> ConvShareVit:
    """A small model in float64 whose every parameter is random, norms and biases too."""
    torch.manual_seed(SEED)
    module = ConvShareVit(config(name, **fields)).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.1, 0.4)
    return module


def images(count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(SEED)
    return torch.randn(count, 2, 13, 13, generator=generator, dtype=torch.float64)


def planes(batch: int, tokens: int, number: int, side: int) -> Tensor:
    generator = torch.Generator().manual_seed(SEED)
    size = (batch, tokens, number * side * side)
    return torch.randn(size, generator=generator, dtype=torch.float64)


def mapped(part: PlaneMap, x: Tensor) -> Tensor:
    """Token by token and plane by plane with ``conv2d`` of one channel, or ``linear``."""
    c, weight = part.config, part.weight
    bias = weight.new_zeros(len(weight)) if part.bias is None else part.bias
    if c.variant == "linear":
        return functional.linear(x, weight, bias)
    side = c.kernel_side
    count = part.made * c.kernels_per_plane  # of kernels for one token
    made = []
    for token in range(x.shape[1]):
        first = token * count if c.variant == "depthwise_same" else 0
        numbers = []
        for row in range(first, first + count):
            read: Tensor = bias[row]
            for plane, kernel in enumerate(weight[row].reshape(part.planes, 1, 1, side, side)):
                one = x[:, token].unflatten(1, (part.planes, 1, c.token_side, c.token_side))
                padding = "same" if c.padded else "valid"
                read = read + functional.conv2d(one[:, plane], kernel, padding=padding)
            numbers.append(read.flatten(1))
        made.append(torch.cat(numbers, 1))
    return torch.stack(made, 1)


def reference(module: ConvShareVit, x: Tensor) -> Tensor:
    """The published structure written down plainly, one head after the other."""
    c = module.config
    stem = functional.conv_transpose2d(
        x, module.stem.weight.flip(2, 3).transpose(0, 1), module.stem.bias
    )
    plane = functional.conv2d(
        functional.gelu(stem), module.one_plane.weight, module.one_plane.bias, padding=1
    )
    x = functional.unfold(plane, c.token_side, stride=c.token_side).transpose(1, 2)
    x = torch.cat([module.cls_token.expand(len(x), 1, -1), x], 1) + module.pos_embed
    size = (c.token_side, c.token_side)

    def norm(part: torch.nn.LayerNorm, x: Tensor) -> Tensor:
        weight, bias = part.weight.view(size), part.bias.view(size)
        return functional.layer_norm(x.unflatten(-1, size), size, weight, bias, 1e-6).flatten(-2)

    for block in module.blocks:
        maps = mapped(block.attn.qkv, norm(block.norm1, x)).chunk(3, -1)
        heads = []
        for head in range(c.heads):
            q, k, v = (part.chunk(c.heads, -1)[head] for part in maps)
            heads.append(functional.scaled_dot_product_attention(q, k, v))
        x = x + mapped(block.attn.proj, torch.cat(heads, -1))
        hidden = functional.gelu(mapped(block.mlp.fc1, norm(block.norm2, x)))
        x = x + mapped(block.mlp.fc2, hidden)
    return module.head(norm(module.norm, x)[:, 0])


@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_is_its_formula(name: str) -> None:
    module, x = built(name, depth=1), images(2)
    with torch.no_grad():
        torch.testing.assert_close(module(x), reference(module, x), rtol=0, atol=1e-10)


def test_kernels_of_a_whole_token_with_the_weights_of_matrices_are_the_same_model() -> None:
    linear, shared = built("linear"), built("shared_valid_full")
    with torch.no_grad():
        for parameter in shared.parameters():
            parameter.zero_()
        shared.load_state_dict(linear.state_dict())
        found, expected = shared(images()), linear(images())
    assert float((found - expected).abs().max()) < 1e-10


def test_a_matrix_is_a_shared_depthwise_valid_convolution() -> None:
    """Linear(64, 64) for tokens of 8 x 8, as measured at 1.4e-14."""
    wide = config("shared_valid_full", plane_size=32, token_side=8)
    part = PlaneMap(wide, 1, 1).double()
    matrix = torch.nn.Linear(64, 64).double()
    part.load_state_dict(matrix.state_dict())
    x = planes(4, 17, 1, 8)
    with torch.no_grad():
        assert float((part(x) - matrix(x)).abs().max()) < 1e-12
        expanded = matrix.weight.reshape(64, 1, 8, 8).repeat(17, 1, 1, 1)
        depthwise = functional.conv2d(x.unflatten(-1, (8, 8)), expanded, groups=17)
        found = depthwise.reshape(4, 17, 64) + matrix.bias
        assert float((part(x) - found).abs().max()) < 1e-12


@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_shared_same_is_a_depthwise_convolution_with_expanded_weights(kernel: int) -> None:
    part = PlaneMap(config("shared_same", kernel=kernel), 1, 2).double()
    x = planes(3, 17, 1, 4)
    with torch.no_grad():
        expected = functional.conv2d(
            x.unflatten(-1, (4, 4)),
            part.weight.reshape(2, 1, kernel, kernel).repeat(17, 1, 1, 1),
            None if part.bias is None else part.bias.repeat(17),
            padding="same",
            groups=17,
        )
        torch.testing.assert_close(part(x), expected.reshape(3, 17, 32), rtol=0, atol=1e-12)


def test_a_score_is_the_valid_correlation_of_two_planes_over_the_side() -> None:
    """What reaches the softmax of the graph, against ``conv2d`` of planes with planes."""
    module = built("shared_valid_full", depth=1, heads=2)
    side = module.config.token_side
    graph = trace(module.float(), (images(1).float(),), name="small")
    (region,) = graph.regions
    seen: dict[str, Tensor] = {}
    execute(graph, images(1).float(), observe=lambda op, value: seen.update({op.name: value}))
    q, k = (seen[name][0].double() for name in graph.operator(region.scores).inputs)
    for head in range(2):
        query, key = (x[head].reshape(-1, 1, side, side) for x in (q, k))
        expected = functional.conv2d(query, key).flatten(1) / side
        found = seen[region.scores][0, head].double()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (region.heads, region.tokens, region.head_dim) == (2, 17, side * side)
    assert region.scale == 1 / side


def test_scores_and_weighted_planes_are_attention() -> None:
    """T² valid correlations, softmax and a 1 x 1 convolution over the tokens: measured at 1e-15."""
    q, k, v = planes(3, 17, 1, 8).reshape(3, 17, 64)
    one = q.reshape(17, 1, 8, 8)
    weights = torch.softmax(functional.conv2d(one, k.reshape(17, 1, 8, 8)).flatten(1) / 8, -1)
    mixed = functional.conv2d(v.reshape(1, 17, 8, 8), weights[:, :, None, None])
    expected = functional.scaled_dot_product_attention(q[None], k[None], v[None])
    torch.testing.assert_close(mixed.flatten(2), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["shared_valid_full", "shared_valid_k", "shared_same"])
def test_maps_are_what_a_4f_system_computes(name: str) -> None:
    c = config(name)
    part = PlaneMap(c, 1, 1).double()
    weight = part.weight.detach().reshape(-1, 1, c.kernel_side, c.kernel_side)
    optics = Conv4f(weight, readout="same" if c.padded else "valid").double()
    x = planes(1, 17, 1, 4)
    assert part.bias is not None
    with torch.no_grad():
        read = optics(x.reshape(17, 1, 4, 4)) + part.bias[:, None, None]
        torch.testing.assert_close(part(x), read.reshape(1, 17, 16), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if "," in name else []) for name in VARIANTS],
)
def test_every_variant_traces_to_convolutions(name: str) -> None:
    module = built(name, depth=1).float()
    x = images().float()
    graph = trace(module, (x[:1],), name=name)
    assert not graph.unmapped and graph.batched and len(graph.regions) == 1
    with torch.no_grad():
        torch.testing.assert_close(execute(graph, x), module(x), rtol=1e-4, atol=1e-3)
    c = module.config
    pixels = c.dim if c.padded else (c.token_side - c.kernel_side + 1) ** 2
    tokens = 1 if name == "depthwise_same" else 17
    for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
        op = graph.operator(f"blocks.0.{part}")
        assert op.macs == tokens * pixels * module.get_parameter(f"{op.name}.weight").numel()
        assert op.kind == ("Linear" if name == "linear" else "Conv2d")
        if op.kind == "Conv2d":
            assert op.attributes["groups"] == 17 // tokens
            assert op.output.shape[0] == tokens
    assert sum(op.params for op in graph.operators()) == c.parameters


@pytest.mark.parametrize("name", sorted(n for n, e in NETWORKS.items() if e.kind == "convshare"))
def test_files_of_the_zoo(name: str) -> None:
    entry = NETWORKS[name]
    assert isinstance(entry.config, ConvShareConfig)
    data = name.rpartition("_")[2]
    if data == "cifar100":  # FCSA's
        assert (entry.config.tokens, entry.config.depth, entry.config.heads) == (145, 8, 4)
        assert entry.config.stem_kernel == 25
    else:
        assert entry.config.tokens == 17
        assert entry.dataset is DATASETS[data]
        assert entry.input_shape[1:] == {"digits": (1, 8, 8), "mnistm": (3, 28, 28)}[data]
        short = {"valid_full": "shared_valid_full", "valid_k": "shared_valid_k"}
        short |= {"linear": "linear", "same": "shared_same", "depthwise": "depthwise_same"}
        assert (
            entry.config.variant == short[name.removeprefix("convshare_").removesuffix(f"_{data}")]
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'variant = "shared_valid_k"\nkernel = 6',
            r"shared_valid_k needs kernels \* \(token_side - kernel \+ 1\)\^2 = token_side\^2, got "
            "token_side 8, kernel 6: kernel 1 with kernels 1, kernel 5 with kernels 4, kernel 7 "
            "with kernels 16, kernel 8 with kernels 64 would do",
        ),
        (
            'variant = "shared_valid_k"\nkernel = 7\nkernels = 15',
            "token_side 8, kernel 7, kernels 15: kernel 1 with kernels 1, .*would do",
        ),
        ('variant = "shared_same"\nkernel = 9', "kernel 9 is larger than token_side 8"),
        ('variant = "shared_same"', "variant 'shared_same' needs kernel, the side of its kernels"),
        ("kernel = 7", "kernel and kernels are not for variant 'shared_valid_full'"),
        ('variant = "linear"\nkernels = 2', "not for variant 'linear'"),
        ("plane_size = 30", "plane_size 30 is not a multiple of token_side 8"),
        ("plane_size = 24", "plane_size 24 is smaller than image_size 28"),
        ('variant = "same"', "model.variant: Input should be 'linear', 'shared_valid_full'"),
        ("kernel = true", "model.kernel: expected a whole number, got True"),
    ],
)
def test_sizes_that_do_not_close_are_refused_in_one_sentence(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'kind = "convshare"\n[model]\n{text}\n')
    with pytest.raises(VitruviusError, match=message) as caught:
        resolve_model(str(path))
    assert "\n" not in str(caught.value)


def test_kernels_of_same_padding_make_heads_and_mlp_wider() -> None:
    (block,) = built("shared_same, 2 kernels", depth=1).blocks
    parts = (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2)
    sizes = [tuple(part.weight.shape) for part in parts]
    # 3 heads, kernels of 3 x 3, an MLP of 2 planes
    assert sizes == [(3 * 3 * 2, 9), (1, 3 * 2 * 9), (2 * 2, 9), (1, 2 * 2 * 9)]


def test_valid_k_finds_its_kernels() -> None:
    assert config("shared_valid_k").kernels_per_plane == 4
    assert config("shared_valid_k", kernels=4).kernels_per_plane == 4
    assert config("shared_valid_k", kernel=4).kernels_per_plane == 16


def test_a_file_may_name_weights_and_images(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'kind = "convshare"\nweights = "w.safetensors"\ndataset = "digits"\n[model]\n'
        "image_size = 8\nplane_size = 8\ntoken_side = 4\nchannels = 1\ndepth = 1\n"
    )
    with pytest.raises(VitruviusError, match=r"expected a safetensors file, found none at .*w"):
        resolve_model(str(path))
    entry = load_network_file(path)
    state = {name: value + 1 for name, value in entry.build().state_dict().items()}
    save_weights(state, tmp_path / "w.safetensors", {})
    workload = resolve_model(str(path))
    assert workload.dataset is not None and workload.dataset.name == "digits"
    assert all(torch.equal(v, state[k]) for k, v in workload.module.state_dict().items())
    with pytest.raises(VitruviusError, match="has weights for images of its own size"):
        resized(entry, 6)
