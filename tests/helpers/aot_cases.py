"""The launches that ship, at the shapes of the family, recorded from the launchers themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from faster_smolvlm.kernels import (
    attention,
    decode_attention,
    down_decode,
    layer_norm,
    lm_head_argmax,
    mlp_decode,
    out_decode,
    pixel_shuffle_project,
    qkv_decode,
    rms_norm,
    rotary,
)
from faster_smolvlm.kernels.launch import ARCHITECTURES, Launch, record


@dataclass(frozen=True)
class Text:
    """Sizes of a text stack."""

    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int = 49280
    head_dim: int = 64


MODELS = {"256m": Text(576, 1536, 9, 3), "500m": Text(960, 2560, 15, 5), "2.2b": Text(2048, 8192, 32, 32)}
BF16, F32 = torch.bfloat16, torch.float32


def meta(*shape: int, dtype: torch.dtype = BF16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def decode_step(model: Text, dtype: torch.dtype, int8: bool, pdl: bool, batch: int = 1) -> None:
    """Make every launch of one decode step: layer, head, advance."""
    weight_type = torch.int8 if int8 else dtype

    def weight(n: int, k: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        return meta(n, k, dtype=weight_type), meta(n, dtype=F32) if int8 else None

    h, q_rows, kv_rows = model.hidden, model.heads * model.head_dim, model.kv_heads * model.head_dim
    x, norm = meta(batch, h, dtype=dtype), meta(h, dtype=dtype)
    position, splits = meta(batch, dtype=torch.int32), decode_attention.split_count(model.kv_heads, x.device)
    (wq, sq), (wk, sk), (wv, sv) = weight(q_rows, h), weight(kv_rows, h), weight(kv_rows, h)
    cache = meta(batch, model.kv_heads, 2048, model.head_dim, dtype=dtype)
    q = meta(batch, model.heads, model.head_dim, dtype=dtype)
    partial_o, partial_l = (
        meta(batch, model.heads, splits, model.head_dim, dtype=F32),
        meta(batch, model.heads, splits, dtype=F32),
    )
    table = meta(8192, model.head_dim, dtype=dtype)
    qkv_decode.qkv_decode(
        x,
        norm,
        (wq, wk, wv),
        (sq, sk, sv) if int8 else None,
        table,
        table,
        position,
        position,
        cache,
        cache,
        q,
        1e-5,
        pdl,
    )
    decode_attention.decode_attention(q, cache, cache, position, position, partial_o, partial_l, 0.125, pdl)
    out_decode.out_decode(partial_o, partial_l, *weight(h, q_rows), x, x, pdl)
    (gate, sg), (up, su) = weight(model.intermediate, h), weight(model.intermediate, h)
    middle = meta(batch, model.intermediate, dtype=dtype)
    mlp_decode.mlp_decode(x, norm, gate, up, (sg, su) if int8 else None, middle, 1e-5, pdl)
    down_decode.down_decode(middle, *weight(h, model.intermediate), x, x, pdl)
    head, scale = weight(model.vocabulary, h)
    blocks = lm_head_argmax.head_blocks(head)
    best, index = meta(batch, blocks, dtype=F32), meta(batch, blocks, dtype=torch.int32)
    lm_head_argmax.lm_head_argmax(x, norm, head, scale, None, best, index, 1e-5, pdl)
    lm_head_argmax.advance(
        best, index, meta(model.vocabulary, h, dtype=dtype), meta(batch, dtype=torch.int64), x,
        meta(batch, 8, dtype=torch.int64), position, meta(batch, dtype=torch.int32), pdl,
    )  # fmt: skip


def masks(dtype: torch.dtype, length: int, heads: int, kv_heads: int, dim: int) -> None:
    """Make attention's launches with every kind of mask: of the keys or of each query, for all rows alike or not."""
    q, k = meta(2, length, heads, dim, dtype=dtype), meta(2, length, kv_heads, dim, dtype=dtype)
    shapes = [(2, length), (1, length, length), (2, length, length)]
    for shape, causal in product(shapes, (False, True)):
        attention.attention(q, k, k, meta(*shape, dtype=torch.bool), dim**-0.5, causal)


def vision(dtype: torch.dtype, tokens: int, heads: int, dim: int, scale: int, hidden: int) -> None:
    """Make the launches of the vision tower and the connector."""
    width = heads * dim
    qkv = meta(17, tokens, 3, heads, dim, dtype=dtype)
    q, k, v = qkv.unbind(2)
    attention.attention(q, k, v, None, dim**-0.5, False)
    attention.attention(q, k, v, meta(17, tokens, dtype=torch.bool), dim**-0.5, False)
    x, vector = meta(17, tokens, width, dtype=dtype), meta(width, dtype=dtype)
    layer_norm.layer_norm(x, x, vector, vector, 1e-6)
    pixel_shuffle_project.pixel_shuffle_project(x, meta(hidden, width * scale**2, dtype=dtype), scale)


def prefill(dtype: torch.dtype, model: Text) -> None:
    """Make the launches of the text stack over a prompt, and of the norm's backward."""
    x, weight = meta(1, 1100, model.hidden, dtype=dtype), meta(model.hidden, dtype=dtype)
    rms_norm.rms_norm(x, x, weight, 1e-5)
    rms_norm.rms_norm_backward(x, x, weight, 1e-5)
    q = meta(1, 1100, model.heads, model.head_dim, dtype=dtype)
    k = meta(1, 1100, model.kv_heads, model.head_dim, dtype=dtype)
    table = meta(1, 1100, model.head_dim, dtype=dtype)
    rotary.rotary(q, k, table, table)
    attention.attention(q, k, k, None, 0.125, True)
    attention.attention(q, k, k, meta(1, 1100, dtype=torch.bool), 0.125, True)


GROUPS: dict[str, Callable[[bool], None]] = {
    "vision-256m": lambda pdl: vision(BF16, 1024, 12, 64, 4, 576),
    "vision-2.2b": lambda pdl: vision(BF16, 729, 16, 72, 3, 2048),
    "prefill-256m": lambda pdl: prefill(BF16, MODELS["256m"]),
    "decode-256m": lambda pdl: decode_step(MODELS["256m"], BF16, False, pdl),
    "decode-256m-int8": lambda pdl: decode_step(MODELS["256m"], BF16, True, pdl),
    "decode-500m": lambda pdl: decode_step(MODELS["500m"], BF16, False, pdl),
    "decode-500m-int8": lambda pdl: decode_step(MODELS["500m"], BF16, True, pdl),
    "decode-2.2b": lambda pdl: decode_step(MODELS["2.2b"], BF16, False, pdl),
    "decode-2.2b-int8": lambda pdl: decode_step(MODELS["2.2b"], BF16, True, pdl),
    "vision-256m-fp16": lambda pdl: vision(torch.float16, 1024, 12, 64, 4, 576),
    "decode-256m-fp16": lambda pdl: decode_step(MODELS["256m"], torch.float16, False, pdl),
    "vision-256m-fp32": lambda pdl: vision(F32, 1024, 12, 64, 4, 576),
    "prefill-256m-fp32": lambda pdl: prefill(F32, MODELS["256m"]),
    "decode-256m-fp32": lambda pdl: decode_step(MODELS["256m"], F32, False, pdl),
}


F16 = torch.float16
# All kinds of masks, at lengths that are no multiple of 16 too, which most prompts have; and the other dtypes and sizes
# of tests/gpu. They are held to the budgets alone: no spills.
MORE: dict[str, Callable[[bool], None]] = {
    "masks-256m": lambda pdl: masks(BF16, 1101, 9, 3, 64),
    "masks-256m-even": lambda pdl: masks(BF16, 1104, 9, 3, 64),
    "masks-2.2b": lambda pdl: masks(BF16, 1101, 32, 32, 64),
    "masks-2.2b-vision": lambda pdl: masks(BF16, 729, 16, 16, 72),
    "masks-256m-fp16": lambda pdl: masks(F16, 1101, 9, 3, 64),
    "masks-256m-fp32": lambda pdl: masks(F32, 1101, 9, 3, 64),
    "masks-2.2b-vision-fp32": lambda pdl: masks(F32, 729, 16, 16, 72),
    "masks-demo-fp32": lambda pdl: masks(F32, 97, 4, 2, 32),
    "prefill-256m-fp16": lambda pdl: prefill(F16, MODELS["256m"]),
    "prefill-demo-fp32": lambda pdl: prefill(F32, Text(160, 384, 4, 2, vocabulary=512, head_dim=32)),
    "vision-2.2b-fp16": lambda pdl: vision(F16, 729, 16, 72, 3, 2048),
    "vision-2.2b-fp32": lambda pdl: vision(F32, 729, 16, 72, 3, 2048),
    **{
        f"decode-{model}{'-int8' if int8 else ''}-{name}": partial(decode_step, MODELS[model], dtype, int8)
        for model, (name, dtype), int8 in product(MODELS, (("fp16", F16), ("fp32", F32)), (False, True))
    },
}


GROUPS |= MORE


def launches(group: str, arch: str) -> Iterator[tuple[str, Launch]]:
    """Yield (name, launch) of a group; a kernel launched twice gets a number."""
    assert arch in ARCHITECTURES
    with record(arch) as recorded:
        GROUPS[group](arch in ("sm90", "sm100"))
    seen: dict[str, int] = {}
    for launch in recorded:
        kernel = launch.kernel.__name__.removesuffix("_kernel")
        seen[kernel] = seen.get(kernel, 0) + 1
        yield f"{group}/{kernel}" + (f"#{seen[kernel]}" if seen[kernel] > 1 else ""), launch
