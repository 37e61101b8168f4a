"""MPCViT in the zoo: its formulas, what a config leaves out, fusing, tracing, its sizes."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vitruvius.errors import VitruviusError
from vitruvius.models.graph import Graph, execute
from vitruvius.models.resolve import resized, resolve_model
from vitruvius.models.trace import trace
from vitruvius.models.zoo.mpcvit import MpcVit, fused, relu_softmax, two_quad
from vitruvius.models.zoo.mpcvit_config import MpcVitConfig
from vitruvius.models.zoo.network_file import NETWORKS, load_network_file, network_text

SEED = 5
SMALL = {
    "image_size": 8,
    "patch_size": 2,
    "channels": 1,
    "dim": 24,
    "depth": 3,
    "heads": 4,
}
ALL_ROWS = tuple(range(17))


def built(**fields: object) -> MpcVit:
    """A small model whose every parameter is random, norms and biases too."""
    torch.manual_seed(SEED)
    module = MpcVit(MpcVitConfig.model_validate(SMALL | fields)).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.1, 0.4)
    return module


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(SEED))


def reference(module: MpcVit, x: Tensor) -> Tensor:
    """§1.2 and §1.3 written down plainly: every variant of every head computed, then one taken."""
    config = module.config
    x = module.patch_embed(x).flatten(2).transpose(1, 2)
    x = torch.cat([module.cls_token.expand(len(x), 1, -1), x], 1) + module.pos_embed
    for layer, block in enumerate(module.blocks):
        y = functional.layer_norm(x, (config.dim,), block.norm1.weight, block.norm1.bias)
        q, k, v = (
            part.unflatten(-1, (config.heads, -1)).transpose(1, 2)
            for part in (y @ block.attn.qkv.weight.T).chunk(3, -1)
        )
        s = q @ k.mT / math.sqrt(config.dim // config.heads)
        tokens = s.shape[-1]
        variants = {
            "softmax": s.exp() / s.exp().sum(-1, keepdim=True),
            "relu_softmax": s.clamp(min=0) / (s.clamp(min=0).sum(-1, keepdim=True) + 1e-5),
            "2quad": (s + 5) ** 2 / ((s + 5) ** 2).sum(-1, keepdim=True),
            "scale": s / tokens,
        }
        if config.attention == "the_x":
            net, e = block.attn.reciprocal, ((s / 2 + 1) ** 3).clamp(min=0)
            inner = net.fc2(net.fc1(e.sum(-1, keepdim=True) / tokens).relu()).relu()
            variants["the_x"] = e * net.fc3(inner) / tokens
        if config.relu_softmax is None:
            weights = variants[config.attention]
        else:
            chosen = torch.zeros(config.units)
            chosen[list(config.relu_softmax[layer])] = 1
            alpha = chosen.view(
                {"layer": (1,), "head": (-1, 1, 1), "row": (-1, 1)}[config.granularity]
            )
            weights = alpha * variants["relu_softmax"] + (1 - alpha) * variants["scale"]
        x = x + block.attn.proj((weights @ v).transpose(1, 2).flatten(2))
        x = functional.layer_norm(x, (config.dim,), block.norm2.weight, block.norm2.bias)
        h = block.mlp.fc1(x)
        tokens_on = config.activated[layer] if config.activated else None
        beta = torch.ones(tokens, 1) if tokens_on is None else torch.zeros(tokens, 1)
        if tokens_on is not None:
            beta[list(tokens_on)] = 1
        kind = config.activation if isinstance(config.activation, str) else config.activation[layer]
        beta = beta * (kind != "linear")
        active = {
            "gelu_tanh": functional.gelu(h, approximate="tanh"),
            "quad": 0.125 * h * h + 0.25 * h + 0.5,
            "relu": h.relu(),
            "linear": h,
        }[kind]
        out = block.mlp.fc2(beta * active + (1 - beta) * h)
        x = x + (beta * out + (1 - beta) * out.relu() if config.relu_behind else out)
    x = functional.layer_norm(x, (config.dim,), module.norm.weight, module.norm.bias)
    return module.head(x[:, 0])


VARIANTS: dict[str, dict[str, object]] = {
    "softmax": {},
    "relu_softmax": {"attention": "relu_softmax"},
    "2quad, quad": {"attention": "2quad", "activation": "quad"},
    "scale": {"attention": "scale", "activation": "relu"},
    "scale, linear order": {"attention": "scale", "scale_order": "linear"},
    "the_x": {"attention": "the_x", "activation": "relu"},
    "heads": {"attention": "mixed", "relu_softmax": ((0, 2), (), (1, 2, 3))},
    "heads, linear order": {
        "attention": "mixed",
        "relu_softmax": ((0, 2), (), (3,)),
        "scale_order": "linear",
    },
    "rows": {
        "attention": "mixed",
        "granularity": "row",
        "relu_softmax": ((0, 5, 16), ALL_ROWS, (3,)),
    },
    "rows, linear order": {
        "attention": "mixed",
        "granularity": "row",
        "relu_softmax": ((0, 5, 16), ALL_ROWS, ()),
        "scale_order": "linear",
    },
    "layers": {"attention": "mixed", "granularity": "layer", "relu_softmax": ((), (0,), ())},
    "no activation in two layers": {"activation": ("linear", "gelu_tanh", "linear")},
    "the same, ReLU behind": {
        "activation": ("linear", "gelu_tanh", "linear"),
        "relu_behind": True,
    },
    "tokens": {"activated": ((0, 7), None, ())},
    "tokens, ReLU behind": {"activated": ((0, 7), None, ()), "relu_behind": True},
}


def traced(module: MpcVit) -> Graph:
    return trace(module, (images(1),), name="mpcvit")


@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_is_its_formula_and_its_graph_is_the_module(name: str) -> None:
    module, x = built(**VARIANTS[name]), images()
    with torch.no_grad():
        torch.testing.assert_close(module(x), reference(module, x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(execute(traced(module), x), module(x), rtol=1e-5, atol=1e-5)


def test_what_is_left_out_is_not_computed() -> None:
    """A gate of 0 that is multiplied instead would leave Relu and Gelu at their full size."""
    graph = traced(
        built(attention="mixed", relu_softmax=((1,), (), (0, 1, 2)), activated=((4,),) * 3)
    )
    relus = [op.output.shape for op in graph.operators() if op.kind == "Relu"]
    assert relus == [(1, 1, 17, 17), (1, 3, 17, 17)]
    assert {op.output.shape for op in graph.operators() if op.kind == "Gelu"} == {(1, 1, 48)}
    rows = traced(built(attention="mixed", granularity="row", relu_softmax=((2, 9), (), ())))
    assert [op.output.shape for op in rows.operators() if op.kind == "Relu"] == [(1, 4, 2, 17)]


def test_linear_order_makes_no_scores() -> None:
    graph = traced(built(attention="scale", scale_order="linear"))
    products = [op.output.shape for op in graph.operators() if op.kind == "MatMul"]
    assert products == [(1, 4, 6, 6), (1, 4, 17, 6)] * 3


@pytest.mark.parametrize("relu_behind", [False, True])
def test_fused_is_equal_and_has_one_matrix_less(relu_behind: bool) -> None:
    module = built(activation=("linear", "relu", "linear"), relu_behind=relu_behind).train()
    found = fused(module)
    with torch.no_grad():
        torch.testing.assert_close(found(images()), module(images()), rtol=1e-5, atol=1e-5)
    linears = Counter(op.kind for op in traced(found.eval()).operators())["Linear"]
    assert linears == 1 + 3 * 4 - 2
    assert module.config.fused is False and hasattr(module.blocks[0].mlp, "fc1")
    assert sum(p.numel() for p in found.parameters()) == found.config.parameters
    again = fused(found)
    torch.testing.assert_close(again(images()), found(images()))


@pytest.mark.parametrize(
    "fields", [{}, {"norm_affine": False}, {"norms": "affine", "attention": "the_x"}]
)
def test_counted_parameters_are_those_of_the_module(fields: dict[str, object]) -> None:
    module = built(**fields)
    assert sum(p.numel() for p in module.parameters()) == module.config.parameters
    norms = [part for part in module.modules() if isinstance(part, nn.LayerNorm)]
    assert len(norms) == (0 if "norms" in fields else 2 * 3 + 1)


def test_normalisers_at_values_worked_out_by_hand() -> None:
    scores = torch.tensor([[3.0, -1.0, 1.0]])
    torch.testing.assert_close(relu_softmax(scores), torch.tensor([[3.0, 0.0, 1.0]]) / 4.00001)
    torch.testing.assert_close(two_quad(scores), torch.tensor([[64.0, 16.0, 36.0]]) / 116)


def test_affine_norms_are_a_weight_and_a_bias() -> None:
    module, x = built(norms="affine"), images()
    norm = module.blocks[0].norm1
    tokens = torch.randn(2, 17, 24)
    torch.testing.assert_close(norm(tokens), tokens * norm.weight + norm.bias)
    with torch.no_grad():
        torch.testing.assert_close(execute(traced(module), x), module(x), rtol=1e-5, atol=1e-5)


def test_sizes_are_the_published_ones() -> None:
    """§1.2's table."""
    sizes = {
        name: (c.tokens, c.depth, c.heads, c.dim, c.dim // c.heads, c.hidden // c.dim, c.classes)
        for name, entry in NETWORKS.items()
        if isinstance(c := entry.config, MpcVitConfig)
    }
    assert sizes["mpcvit_cifar10"] == (65, 7, 4, 256, 64, 2, 10)
    assert sizes["mpcvit_cifar100"] == (65, 7, 4, 256, 64, 2, 100)
    assert sizes["mpcvit_tiny_imagenet"] == (257, 9, 12, 192, 16, 2, 200)


@pytest.mark.parametrize(
    "name",
    [
        "mpcvit_cifar10",
        "mpcvit_digits",
        *(
            pytest.param(f"mpcvit_{name}", marks=pytest.mark.slow)
            for name in ("cifar100", "mnistm", "tiny_imagenet")
        ),
    ],
)
def test_every_file_traces_with_all_its_attention(name: str) -> None:
    workload = resolve_model(name)
    graph = trace(workload.module, workload.example_inputs, name=name)
    config = NETWORKS[name].config
    assert not graph.unmapped and len(graph.regions) == config.depth
    norms = [op for op in graph.operators() if op.kind == "LayerNorm"]
    assert len(norms) == 2 * config.depth + 1


def test_another_image_size() -> None:
    entry = resized(NETWORKS["mpcvit_digits"], 16)
    assert isinstance(entry.config, MpcVitConfig) and entry.config.tokens == 65


def test_a_file_can_say_everything(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'kind = "mpcvit"\n[model]\nimage_size = 8\npatch_size = 4\ndim = 8\ndepth = 2\nheads = 2\n'
        'attention = "mixed"\nrelu_softmax = [[0], []]\nactivation = ["gelu_tanh", "linear"]\n'
        'activated = ["all", []]\nfused = true\n'
    )
    config = load_network_file(path).config
    assert isinstance(config, MpcVitConfig)
    assert config.relu_softmax == ((0,), ()) and config.activated == (None, ())
    assert [config.is_fused(layer) for layer in (0, 1)] == [False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('attention = "mixed"', "the list relu_softmax goes with attention 'mixed'"),
        ("relu_softmax = [[0]]", "the list relu_softmax goes with attention 'mixed'"),
        (
            'attention = "mixed"\nrelu_softmax = [[0]]',
            "expected a list for each of 7 layers, got 1",
        ),
        (
            'attention = "mixed"\ndepth = 1\nrelu_softmax = [[4]]',
            r"relu_softmax\[0\]: expected rising numbers from 0 to 3, got \[4\]",
        ),
        (
            'attention = "mixed"\ndepth = 1\nrelu_softmax = [[1, 1]]',
            r"relu_softmax\[0\]: expected rising numbers from 0 to 3, got \[1, 1\]",
        ),
        ('activation = ["quad"]', "activation: expected one for each of 7 layers, got 1"),
        ("activated = [[65]]\ndepth = 1", r"activated\[0\]: expected rising numbers from 0 to 64"),
        ("image_size = 30", "image_size .30, 30. is not a multiple of patch_size 4"),
        ("heads = 3", "dim 256 is not a multiple of heads 3"),
        ('norms = "affine"\nnorm_affine = false', "leaves nothing of a norm"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'kind = "mpcvit"\n[model]\n{text}\n')
    with pytest.raises(VitruviusError, match=message):
        resolve_model(str(path))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"attention": "mixed", "depth": 2, "relu_softmax": ((0, 2), ()), "fused": True},
        {"depth": 2, "activation": ("gelu_tanh", "linear"), "activated": (None, (0, 3))},
        {"image_size": (8, 8), "patch_size": 2, "channels": 1, "norm_eps": 1e-6},
    ],
)
def test_a_model_written_as_a_file_is_read_as_the_same(
    fields: dict[str, object], tmp_path: Path
) -> None:
    config = MpcVitConfig.model_validate(fields)
    path = tmp_path / "found.toml"
    path.write_text(network_text(config, summary='a "quoted" one', source="here"))
    entry = load_network_file(path)
    assert (entry.name, entry.config, entry.summary) == ("found", config, 'a "quoted" one')
