"""Attention in the ways people write it: one region each, and the module's own values.

Expected values are those of the module in PyTorch; expected sizes follow from the configuration
beside each form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vitruvius.models.graph import AttentionRegion, Graph, check, execute
from vitruvius.models.trace import trace

SEED = 23
B, N, H, D = 1, 6, 2, 4
E = H * D
SIDE, WINDOW = 4, 2
"""Windowed forms: a map of 4 x 4 tokens in windows of 2 x 2."""

Forward = Callable[["Parts", Tensor], Tensor]


class Parts(nn.Module):
    """What attention is made of, and a function that puts it together: [B, N, 8] to [B, N, 8]."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.qkv = nn.Linear(E, 3 * E)
        self.q, self.k, self.v, self.o = (nn.Linear(E, E) for _ in range(4))
        self.multihead = nn.MultiheadAttention(E, H, batch_first=True)
        self.tokens_first = nn.MultiheadAttention(E, H)
        self.layer = nn.TransformerEncoderLayer(E, H, 2 * E, batch_first=True)
        self.talk = nn.Linear(H, H, bias=False)
        self.heads_out = nn.Parameter(torch.randn(H, D, E))
        self.heads_in = nn.Parameter(torch.randn(E, H, D))
        self.beta = nn.Parameter(torch.randn(1, 1, E))
        self.bias = nn.Parameter(torch.randn(H, N, N))
        self.table = nn.Parameter(torch.randn(9, H))
        self.logit_scale = nn.Parameter(torch.randn(H, 1, 1))
        index = torch.arange(16).reshape(4, 4) % 9
        self.register_buffer("index", index)
        self.register_buffer("keep", torch.ones(N, N).tril(1).bool())
        shift = torch.zeros(4, 4, 4)
        shift[1, :2, 2:] = shift[3, 2:, :2] = -100.0
        self.register_buffer("shift", shift)
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fused projection, [B, H, N, d] each."""
        q, k, v = self.qkv(x).reshape(x.shape[0], -1, 3, H, D).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def apart(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Separate projections, [B, H, N, d] each."""
        shape = (x.shape[0], -1, H, D)
        q, k, v = (p(x).view(*shape).transpose(1, 2) for p in (self.q, self.k, self.v))
        return q, k, v


def merged(x: Tensor) -> Tensor:
    """[B, H, N, d] to [B, N, E]."""
    return x.transpose(1, 2).flatten(2)


@dataclass(frozen=True)
class Form:
    """One way of writing, and what its region must say."""

    name: str
    forward: Forward
    scale: float = D**-0.5
    bias: bool = False
    tokens: int = N
    windows: int = 1
    heads: int = H
    head_dim: int = D
    batches: tuple[int, ...] = (1, 3)


def fused(m: Parts, x: Tensor) -> Tensor:
    q, k, v = m.heads(x)
    return merged((q @ k.transpose(-2, -1) * D**-0.5).softmax(-1) @ v)


def separate_divided(m: Parts, x: Tensor) -> Tensor:
    q, k, v = m.apart(x)
    scores = torch.matmul(q, k.mT) / math.sqrt(D)
    return merged(torch.matmul(functional.dropout(functional.softmax(scores, -1), 0.1, False), v))


def scaled_query(m: Parts, x: Tensor) -> Tensor:
    q, k, v = m.heads(x)
    return merged(((q * 0.3) @ k.transpose(2, 3)).softmax(-1) @ v)


def scaled_both(m: Parts, x: Tensor) -> Tensor:
    q, k, v = m.apart(x)
    return merged(((q * 0.5) @ (k * 0.25).mT).softmax(-1) @ v)


def scaled_projection(m: Parts, x: Tensor) -> Tensor:
    q = (m.q(x) * 0.3).view(x.shape[0], N, H, D).transpose(1, 2)
    _, k, v = m.apart(x)
    return merged((q @ k.mT).softmax(-1) @ v)


def keys_transposed_once(m: Parts, x: Tensor) -> Tensor:
    q, _, v = m.apart(x)
    k = m.k(x).view(x.shape[0], N, H, D).permute(0, 2, 3, 1)
    return merged((q @ k).softmax(-1) @ v)


def channels_first(m: Parts, x: Tensor) -> Tensor:
    """As in convolutional networks: features before tokens, values on the left."""
    q, k, v = (p(x).transpose(1, 2) for p in (m.q, m.k, m.v))
    share = torch.softmax(torch.bmm(q.transpose(1, 2), k), dim=-1)
    return torch.bmm(v, share.transpose(1, 2)).transpose(1, 2)


def folded_heads(m: Parts, x: Tensor) -> Tensor:
    """Heads in the batch axis, [B * H, N, d]."""
    q, k, v = (t.reshape(-1, N, D) for t in m.apart(x))
    out = torch.bmm(torch.bmm(q * D**-0.5, k.transpose(1, 2)).softmax(-1), v)
    return merged(out.view(-1, H, N, D))


def folded_heads_masked(m: Parts, x: Tensor) -> Tensor:
    """Unfolded for the mask only, as in earlier CLIP and BART."""
    q, k, v = (t.reshape(-1, N, D) for t in m.apart(x))
    scores = torch.bmm(q * D**-0.5, k.transpose(1, 2))
    scores = (scores.view(-1, H, N, N) + m.bias).view(-1, N, N)
    out = torch.bmm(torch.softmax(scores, -1), v)
    return merged(out.view(-1, H, N, D))


def shares_reshaped(m: Parts, x: Tensor) -> Tensor:
    q, k, v = m.apart(x)
    share = (q @ k.mT * D**-0.5 + m.bias).softmax(-1)
    out = torch.bmm(share.reshape(-1, N, N), v.reshape(-1, N, D))
    return merged(out.reshape(-1, H, N, D))


def einsum_heads(m: Parts, x: Tensor) -> Tensor:
    q, k, v = m.heads(x)
    share = (torch.einsum("bhid,bhjd->bhij", q, k) * D**-0.5).softmax(-1)
    return torch.einsum("bhij,bhjd->bihd", share, v).flatten(2)


def einsum_tokens(m: Parts, x: Tensor) -> Tensor:
    q, k, v = (p(x).view(x.shape[0], N, H, D) for p in (m.q, m.k, m.v))
    share = (torch.einsum("bnhd,bmhd->bhnm", q, k) / math.sqrt(D)).softmax(-1)
    return torch.einsum("bhnm,bmhd->bnhd", share, v).flatten(2)


def einsum_keys_first(m: Parts, x: Tensor) -> Tensor:
    q, k, v = m.heads(x)
    share = (torch.einsum("bhjd,bhid->bhij", k, q) * D**-0.5).softmax(-1)
    return merged(torch.einsum("bhjd,bhij->bhid", v, share))


def einsum_ellipsis(m: Parts, x: Tensor) -> Tensor:
    q, k, v = m.heads(x)
    share = (torch.einsum("...id,...jd->...ij", q, k) * D**-0.5).softmax(-1)
    return merged(torch.einsum("... i j, ... j d -> ... i d", share, v))


def einsum_folded(m: Parts, x: Tensor) -> Tensor:
    q, k, v = (t.reshape(-1, N, D) for t in m.apart(x))
    share = (torch.einsum("bid,bjd->bij", q, k) * D**-0.5).softmax(-1)
    return merged(torch.einsum("bij,bjd->bid", share, v).reshape(-1, H, N, D))


def einsum_heads_last(m: Parts, x: Tensor) -> Tensor:
    """Scores [B, N, M, H], the softmax over an axis in the middle."""
    q, k, v = (p(x).view(x.shape[0], N, H, D) for p in (m.q, m.k, m.v))
    share = (torch.einsum("bnhd,bmhd->bnmh", q, k) * D**-0.5).softmax(2)
    return torch.einsum("bnmh,bmhd->bnhd", share, v).flatten(2)


def einsum_projections(m: Parts, x: Tensor) -> Tensor:
    """Heads in the weights: no reshape anywhere."""
    q, k, v = (torch.einsum("bne,ehd->bhnd", x, m.heads_in * f) for f in (0.1, 0.2, 0.3))
    share = (q @ k.mT * D**-0.5).softmax(-1)
    return torch.einsum("bhnd,hde->bne", share @ v, m.heads_out)


def fused_call(m: Parts, x: Tensor) -> Tensor:
    return merged(functional.scaled_dot_product_attention(*m.heads(x)))


def fused_call_float_mask(m: Parts, x: Tensor) -> Tensor:
    q, k, v = m.heads(x)
    return merged(functional.scaled_dot_product_attention(q, k, v, attn_mask=m.bias, scale=0.3))


def fused_call_bool_mask(m: Parts, x: Tensor) -> Tensor:
    q, k, v = m.heads(x)
    return merged(functional.scaled_dot_product_attention(q, k, v, attn_mask=m.keep))


def fused_call_computed_mask(m: Parts, x: Tensor) -> Tensor:
    q, k, v = m.heads(x)
    keep = (x[..., 0] > -10.0)[:, None, None, :]
    return merged(functional.scaled_dot_product_attention(q, k, v, attn_mask=keep))


def fused_call_causal(m: Parts, x: Tensor) -> Tensor:
    return merged(functional.scaled_dot_product_attention(*m.heads(x), is_causal=True))


def fused_call_nothing_masked(m: Parts, x: Tensor) -> Tensor:
    """A mask that keeps everything, as newer versions of transformers give one."""
    q, k, v = m.heads(x)
    keep = torch.ones(1, 1, N, N, dtype=torch.bool)
    return merged(functional.scaled_dot_product_attention(q, k, v, attn_mask=keep))


def filled(m: Parts, x: Tensor) -> Tensor:
    q, k, v = m.heads(x)
    scores = (q @ k.mT * D**-0.5).masked_fill(~m.keep, float("-inf"))
    return merged(scores.softmax(-1) @ v)


def chosen(m: Parts, x: Tensor) -> Tensor:
    q, k, v = m.heads(x)
    lowest = torch.finfo(torch.float32).min
    scores = torch.where(m.keep, q @ k.mT * D**-0.5, torch.tensor(lowest))
    return merged(scores.softmax(-1) @ v)


def bias_before_scale(m: Parts, x: Tensor) -> Tensor:
    q, k, v = m.heads(x)
    return merged((((q @ k.mT) + m.bias) * 0.5).softmax(-1) @ v)


def two_biases(m: Parts, x: Tensor) -> Tensor:
    q, k, v = m.heads(x)
    scores = q @ k.mT * D**-0.5 + m.bias
    scores = scores + torch.zeros(N, N).masked_fill(~m.keep, float("-inf"))
    return merged(scores.softmax(-1) @ v)


def computed_and_known_bias(m: Parts, x: Tensor) -> Tensor:
    q, k, v = m.heads(x)
    lowered = (1.0 - (x[..., 0] > 0).float())[:, None, None, :] * -5.0
    return merged((q @ k.mT * D**-0.5 + lowered + m.bias).softmax(-1) @ v)


def cosine(m: Parts, x: Tensor) -> Tensor:
    """Swin Transformer V2 (Liu et al., arXiv:2111.09883)."""
    q, k, v = m.heads(x)
    scores = functional.normalize(q, dim=-1) @ functional.normalize(k, dim=-1).mT
    scores = scores * torch.clamp(m.logit_scale, max=math.log(100.0)).exp()
    return merged((scores + 16 * torch.sigmoid(m.bias)).softmax(-1) @ v)


def softmax_by_hand(m: Parts, x: Tensor) -> Tensor:
    q, k, v = m.heads(x)
    scores = q @ k.mT * D**-0.5
    powers = torch.exp(scores - scores.amax(-1, keepdim=True))
    return merged((powers / powers.sum(-1, keepdim=True)) @ v)


def multihead(m: Parts, x: Tensor) -> Tensor:
    out: Tensor = m.multihead(x, x, x, need_weights=False)[0]
    return out


def multihead_weights(m: Parts, x: Tensor) -> Tensor:
    out: Tensor = m.multihead(x, x, x)[0]
    return out


def multihead_probe(m: Parts, x: Tensor) -> Tensor:
    """Queries that are parameters: nothing in them is split into heads while running."""
    probe = m.beta.repeat(x.shape[0], 1, 1)
    return x + m.multihead(probe, x, x)[0]


def multihead_masked(m: Parts, x: Tensor) -> Tensor:
    out: Tensor = m.multihead(x, x, x, attn_mask=~m.keep)[0]
    return out


def multihead_tokens_first(m: Parts, x: Tensor) -> Tensor:
    x = x.transpose(0, 1)
    return m.tokens_first(x, x, x)[0].transpose(0, 1)


def multihead_tokens_first_fused(m: Parts, x: Tensor) -> Tensor:
    x = x.transpose(0, 1)
    return m.tokens_first(x, x, x, need_weights=False)[0].transpose(0, 1)


def encoder_layer(m: Parts, x: Tensor) -> Tensor:
    out: Tensor = m.layer(x)
    return out


def partitioned(x: Tensor) -> Tensor:
    """[B, 16, E] to [B * 4, 4, E], windows of 2 x 2 in the batch axis."""
    x = x.view(x.shape[0], SIDE // WINDOW, WINDOW, SIDE // WINDOW, WINDOW, E)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, WINDOW * WINDOW, E)


def unpartitioned(x: Tensor) -> Tensor:
    x = x.view(-1, SIDE // WINDOW, SIDE // WINDOW, WINDOW, WINDOW, E)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, SIDE * SIDE, E)


def relative(m: Parts) -> Tensor:
    """A position bias gathered from a table, [1, H, 4, 4]."""
    return m.table[m.index.view(-1)].view(4, 4, H).permute(2, 0, 1).contiguous().unsqueeze(0)


def windowed(m: Parts, x: Tensor) -> Tensor:
    """Swin Transformer (Liu et al., arXiv:2103.14030), a block that does not shift."""
    q, k, v = m.heads(partitioned(x))
    scores = q * D**-0.5 @ k.transpose(-2, -1) + relative(m)
    return unpartitioned(merged(scores.softmax(-1) @ v))


def shifted(m: Parts, x: Tensor) -> Tensor:
    """Swin Transformer, a block that shifts: one mask for each window."""
    grid = torch.roll(x.view(-1, SIDE, SIDE, E), (-1, -1), (1, 2)).flatten(1, 2)
    q, k, v = m.heads(partitioned(grid))
    scores = q * D**-0.5 @ k.transpose(-2, -1) + relative(m)
    scores = scores.view(-1, 4, H, 4, 4) + m.shift.unsqueeze(1).unsqueeze(0)
    out = scores.view(-1, H, 4, 4).softmax(-1) @ v
    out = unpartitioned(merged(out)).view(-1, SIDE, SIDE, E)
    return torch.roll(out, (1, 1), (1, 2)).flatten(1, 2)


def pixels_apart(m: Parts, x: Tensor) -> Tensor:
    """MobileViT (Mehta and Rastegari, arXiv:2110.02178): tokens of one place in each patch."""
    return unpartitioned(merged(functional.scaled_dot_product_attention(*m.heads(partitioned(x)))))


FORMS = [
    Form("fused", fused),
    Form("separate, divided", separate_divided),
    Form("scaled query", scaled_query, scale=0.3),
    Form("scaled query and key", scaled_both, scale=0.125),
    Form("scaled projection", scaled_projection, scale=0.3),
    Form("keys transposed once", keys_transposed_once, scale=1.0),
    Form("channels first", channels_first, scale=1.0, heads=1, head_dim=E),
    Form("heads in the batch axis", folded_heads),
    Form("heads in the batch axis, masked", folded_heads_masked, bias=True),
    Form("shares reshaped", shares_reshaped, bias=True),
    Form("einsum, heads before tokens", einsum_heads),
    Form("einsum, tokens before heads", einsum_tokens),
    Form("einsum, keys first", einsum_keys_first),
    Form("einsum, ellipsis", einsum_ellipsis),
    Form("einsum, heads in the batch axis", einsum_folded),
    Form("einsum, heads last", einsum_heads_last),
    Form("einsum, projections", einsum_projections),
    Form("fused call", fused_call),
    Form("fused call, float mask", fused_call_float_mask, scale=0.3, bias=True),
    Form("fused call, bool mask", fused_call_bool_mask, bias=True),
    Form("fused call, computed mask", fused_call_computed_mask, bias=True),
    Form("fused call, nothing masked", fused_call_nothing_masked),
    Form("fused call, causal", fused_call_causal, bias=True),
    Form("masked_fill", filled, bias=True),
    Form("where", chosen, bias=True),
    Form("bias before scale", bias_before_scale, scale=0.5, bias=True),
    Form("two biases", two_biases, bias=True),
    Form("computed and known bias", computed_and_known_bias, bias=True),
    Form("cosine", cosine, scale=1.0, bias=True),
    Form("softmax by hand", softmax_by_hand),
    Form("nn.MultiheadAttention", multihead),
    Form("nn.MultiheadAttention, weights", multihead_weights),
    Form("nn.MultiheadAttention, masked", multihead_masked, bias=True),
    Form("nn.MultiheadAttention, tokens first", multihead_tokens_first),
    Form("nn.MultiheadAttention, tokens first, fused", multihead_tokens_first_fused),
    Form("nn.TransformerEncoderLayer", encoder_layer),
    Form("windows", windowed, bias=True, tokens=4, windows=4),
    Form("shifted windows", shifted, bias=True, tokens=4, windows=4),
    Form("pixels apart", pixels_apart, tokens=4, windows=4),
]


def traced(forward: Forward, tokens: int, batches: tuple[int, ...]) -> Graph:
    """The graph of a form, checked and equal to the module for each batch."""
    torch.manual_seed(SEED)
    module = Parts(forward).eval()
    graph = trace(module, (torch.zeros(1, tokens, E),), name="written")
    check(graph)
    print("seed", SEED)
    generator = torch.Generator().manual_seed(SEED)
    for batch in batches:
        x = torch.randn(batch, tokens, E, generator=generator)
        with torch.no_grad():
            expected = module(x)
        torch.testing.assert_close(execute(graph, x), expected, rtol=1e-5, atol=1e-5)
    return graph


@pytest.mark.parametrize("form", FORMS, ids=[form.name for form in FORMS])
def test_every_way_of_writing_attention_is_one_region(form: Form) -> None:
    graph = traced(form.forward, form.tokens * form.windows, form.batches)
    assert graph.unmapped == ()
    assert [op.kind for op in graph.operators()].count("Softmax") == 1
    (region,) = graph.regions
    found = (region.windows, region.heads, region.tokens, region.keys, region.head_dim)
    assert found == (form.windows, form.heads, form.tokens, form.tokens, form.head_dim)
    assert region.scale == pytest.approx(form.scale, rel=1e-6)
    assert bool(region.bias) == form.bias
    scores = graph.operator(region.scores)
    macs = form.windows * form.heads * form.tokens * form.tokens * form.head_dim
    assert scores.macs == graph.operator(region.apply).macs == macs


def bias_of(graph: Graph) -> Tensor:
    """What is added to the scores of the only region: a Constant."""
    (region,) = graph.regions
    (side,) = (
        op
        for op in (graph.operator(name) for name in graph.operator(region.bias).inputs)
        if op.kind == "Constant"
    )
    return graph.tensors[side.tensors["value"]]


def test_a_table_of_positions_and_a_shift_become_one_constant() -> None:
    """Expected: the bias and the mask as the module itself adds them, broadcast and summed."""
    graph = traced(shifted, 16, (1,))
    torch.manual_seed(SEED)
    module = Parts(shifted)
    expected = relative(module)[None] + module.shift[None, :, None]
    torch.testing.assert_close(bias_of(graph), expected.detach(), rtol=0, atol=1e-6)
    assert bias_of(graph).shape == (1, 4, H, 4, 4)


def test_a_boolean_mask_becomes_zero_and_minus_infinity() -> None:
    graph = traced(fused_call_bool_mask, N, (1,))
    keep = torch.ones(N, N).tril(1).bool()
    expected = torch.zeros(N, N).masked_fill(~keep, float("-inf"))
    assert torch.equal(bias_of(graph), expected)


def test_a_row_that_is_filled_all_over_stays_a_where() -> None:
    """Adding a number to such a row keeps what was there; filling it does not."""

    def nothing_kept(m: Parts, x: Tensor) -> Tensor:
        q, k, v = m.heads(x)
        mask = torch.zeros(N, N, dtype=torch.bool)
        mask[2] = True
        return merged((q @ k.mT).masked_fill(mask, -1e4).softmax(-1) @ v)

    graph = traced(nothing_kept, N, (1, 3))
    assert graph.regions == ()
    assert "Where" in [op.kind for op in graph.operators()]


def test_talking_heads_keep_their_parts() -> None:
    """Heads that exchange scores (Shazeer et al., arXiv:2003.02436) are no independent
    attentions.
    """

    def talking(m: Parts, x: Tensor) -> Tensor:
        q, k, v = m.heads(x)
        scores = m.talk((q @ k.mT).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return merged(scores.softmax(-1) @ v)

    graph = traced(talking, N, (1, 3))
    assert graph.regions == ()
    kinds = [op.kind for op in graph.operators()]
    assert (kinds.count("MatMul"), kinds.count("Softmax"), kinds.count("Linear")) == (2, 1, 2)


def test_shares_that_somebody_else_reads_are_no_region() -> None:
    def looked_at(m: Parts, x: Tensor) -> Tensor:
        q, k, v = m.heads(x)
        share = (q @ k.mT).softmax(-1)
        return merged(share @ v) * share[:, :, 0].mean(1).unsqueeze(-1)

    assert traced(looked_at, N, (1, 3)).regions == ()


def test_a_softmax_over_queries_is_no_region() -> None:
    def over_queries(m: Parts, x: Tensor) -> Tensor:
        q, k, v = m.heads(x)
        return merged((q @ k.mT).softmax(-2) @ v)

    assert traced(over_queries, N, (1, 3)).regions == ()


def test_channels_that_attend_to_channels() -> None:
    """Cross-covariance attention (El-Nouby et al., arXiv:2106.09681): d x d scores."""

    def covariance(m: Parts, x: Tensor) -> Tensor:
        q, k, v = (t.transpose(-2, -1) for t in m.heads(x))
        q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
        out = ((q @ k.transpose(-2, -1)) * m.logit_scale).softmax(-1) @ v
        return out.permute(0, 3, 1, 2).flatten(2)

    (region,) = traced(covariance, N, (1, 3)).regions
    assert (region.heads, region.tokens, region.keys, region.head_dim) == (H, D, D, N)


def test_queries_of_another_length() -> None:
    """One query pools the tokens."""

    def pooled(m: Parts, x: Tensor) -> Tensor:
        q, k, v = m.heads(x)
        return merged((q[:, :, :1] @ k.mT * D**-0.5).softmax(-1) @ v)

    (region,) = traced(pooled, N, (1, 3)).regions
    assert (region.tokens, region.keys, region.heads) == (1, N, H)


def test_queries_that_are_parameters() -> None:
    """The keys tell how many heads there are; the scale is in the parameters."""
    (region,) = traced(multihead_probe, N, (1,)).regions
    assert (region.heads, region.tokens, region.keys, region.windows) == (H, 1, N, 1)
    assert region.scale in (pytest.approx(1.0), pytest.approx(D**-0.5))


def test_grouped_queries_of_the_fused_operator_are_one_region() -> None:
    """Copies of the key for every head would be read H times."""

    def grouped(m: Parts, x: Tensor) -> Tensor:
        q, k, v = m.heads(x)
        attend = functional.scaled_dot_product_attention
        return merged(attend(q, k[:, :1], v[:, :1], enable_gqa=True))

    (region,) = traced(grouped, N, (1,)).regions
    assert (region.heads, region.kv_heads, region.windows, region.keys) == (H, 1, 1, N)


def test_a_region_names_its_parts() -> None:
    (region,) = traced(fused, N, (1,)).regions
    assert isinstance(region, AttentionRegion)
    assert (region.bias, region.windows) == ("", 1)
