"""Attention and its block against formulas written out and against PyTorch."""

import math

import pytest
import torch

from bench.nn.transformer import TransformerBlock, attend, attention_mask


def test_attention_equals_a_softmax_written_out() -> None:
    torch.manual_seed(5)
    query, key, value = torch.randn(3, 2, 4, 6)
    mask = torch.tensor([[False, True, True, True], [False, False, False, True]])
    allowed = attention_mask(mask, causal=True)
    found = attend(query, key, value, allowed, num_heads=2)
    for head in range(2):
        part = slice(3 * head, 3 * head + 3)
        logits = query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(3)
        shares = logits.masked_fill(~allowed[:, 0], -torch.inf).softmax(-1)
        assert torch.allclose(found[..., part], shares @ value[..., part], atol=1e-6)


def test_mask_hides_later_events_and_padding_but_never_the_position_itself() -> None:
    mask = torch.tensor([[False, True, True]])
    assert attention_mask(mask, causal=True)[0, 0].int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert attention_mask(mask)[0, 0].int().tolist() == [[1, 1, 1], [0, 1, 1], [0, 1, 1]]


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_transformer_block_equals_the_layer_of_pytorch(norm: str) -> None:
    torch.manual_seed(6)
    block = TransformerBlock(8, 2, 0.0, 0.0, norm=norm, eps=1e-5).eval()  # type: ignore[arg-type]
    layer = torch.nn.TransformerEncoderLayer(
        8, 2, 32, 0.0, "gelu", batch_first=True, norm_first=norm == "pre"
    ).eval()
    names = {
        "self_attn.in_proj_": "query_key_value.",
        "self_attn.out_proj.": "output.",
        "linear1.": "network.0.",
        "linear2.": "network.2.",
        "norm1.": "attention_norm.",
        "norm2.": "network_norm.",
    }
    weights = block.state_dict()
    for name, parameter in layer.named_parameters():
        head = next(head for head in names if name.startswith(head))
        parameter.data.copy_(weights[names[head] + name.removeprefix(head)])
    x = torch.randn(2, 5, 8)
    mask = torch.tensor([[False, False, True, True, True], [True] * 5])
    expected = layer(x, src_key_padding_mask=~mask)
    assert torch.allclose(block(x, attention_mask(mask))[mask], expected[mask], atol=1e-5)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_chosen_positions_are_those_of_the_whole_block_with_their_gradients(norm: str) -> None:
    torch.manual_seed(7)
    block = TransformerBlock(8, 2, 0.0, 0.0, norm=norm)  # type: ignore[arg-type]
    mask = torch.tensor([[False, False, True, True, True], [True] * 5, [False] * 5])
    chosen = torch.tensor([[False, False, True, False, True], [False] * 5, [False] * 4 + [True]])
    allowed, weight = attention_mask(mask, causal=True), torch.randn(3, 8)
    results = []
    for compute in (lambda x: block(x, allowed)[chosen], lambda x: block.at(chosen, x, allowed)):
        block.zero_grad()
        torch.manual_seed(8)
        x = torch.randn(3, 5, 8, requires_grad=True)
        (compute(x) * weight).sum().backward()
        results.append([compute(x), x.grad, *(one.grad.clone() for one in block.parameters())])
    for whole, some in zip(*results, strict=True):
        assert torch.allclose(whole, some, atol=1e-5)
    assert not len(block.at(torch.zeros_like(mask), x, allowed))
