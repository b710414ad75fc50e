"""The numerical steps that have more than one implementation, and the one place that chooses between them.

On a GPU that the Triton kernels were checked for they run; everywhere else, and for what they do not support, plain
torch does. `use` forces either, for tests and comparisons.

Where no gradients are recorded, steps whose input nobody needs afterwards overwrite it: on a CPU a fresh large tensor
costs more in page faults than the arithmetic that fills it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeGuard, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import forced
from ..quoting import shown
from . import reference

ATTENTION = ("auto", "triton", "sdpa", "eager", "flash_attention_2")
"""Values of `attn_implementation`; "auto" is Triton on a supported GPU, sdpa elsewhere."""

KERNEL_DTYPES = (torch.bfloat16, torch.float16, torch.float32)

T = TypeVar("T")

_usable: dict[torch.device, str] = {}


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x)


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh") if torch.is_grad_enabled() else torch.ops.aten.gelu_(x, approximate="tanh")


def _relu(x: Tensor) -> Tensor:
    return F.relu(x, inplace=not torch.is_grad_enabled())


def _silu(x: Tensor) -> Tensor:
    return F.silu(x, inplace=not torch.is_grad_enabled())


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": _gelu,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": _relu,
    "silu": _silu,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Return the elementwise function that a config calls `hidden_act`; it may overwrite its input.

    An unknown name is a ValueError.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"hidden_act {shown(name)} is not supported; known are {', '.join(sorted(ACTIVATIONS))}.")
    return ACTIVATIONS[name]


def add(x: Tensor, y: Tensor) -> Tensor:
    """x + y; may overwrite `x`."""
    return x + y if torch.is_grad_enabled() or x.dtype != y.dtype else x.add_(y)  # dtypes differ under autocast


def multiply(x: Tensor, y: Tensor) -> Tensor:
    """x · y; may overwrite `x`."""
    return x * y if torch.is_grad_enabled() or x.dtype != y.dtype else x.mul_(y)


@contextmanager
def use(implementation: str) -> Iterator[None]:
    """Force "triton" or "torch" for every step inside; "triton" on a CPU runs the operators' formulas.

    Under Triton's interpreter (TRITON_INTERPRET=1) "triton" on a CPU runs the kernels themselves.
    """
    with forced.use_implementation(implementation):
        yield


def why_not_triton(device: torch.device, dtype: torch.dtype) -> str:
    """Return why the kernels cannot serve tensors of this kind, or "" if they can."""
    if dtype not in KERNEL_DTYPES:
        return f"the Triton kernels compute in bfloat16, float16 and float32, not in {dtype}"
    if forced.implementation() is not None:
        return "" if forced.implementation() == "triton" else "plain torch was asked for by ops.use('torch')"
    if device not in _usable:
        _usable[device] = _probe(device)
    return _usable[device]


def _probe(device: torch.device) -> str:
    try:
        from ..kernels.launch import UnsupportedArchitectureError, architecture
    except ImportError as error:
        return f"triton cannot be imported ({error}); it comes with torch on Linux"
    try:
        architecture(device)
    except UnsupportedArchitectureError as error:
        return str(error)
    return ""


def _kernels(x: Tensor, *others: Tensor) -> bool:
    """Return whether the kernels serve `x` with `others` of its dtype and device; on a CPU only if forced."""
    if any(other.dtype != x.dtype or other.device != x.device for other in others):
        return False
    if forced.implementation() is not None:
        return forced.implementation() == "triton" and x.dtype in KERNEL_DTYPES
    return x.device.type == "cuda" and not why_not_triton(x.device, x.dtype)


def _run(operator: Callable[..., T], *arguments: object) -> T:
    """Call an operator, or the kernel behind it if nothing looks at operators: that saves 30 µs of the host's time.

    Autograd, tracers and dispatch modes (profilers, FakeTensor) do look.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch._C._is_tracing():
        return operator(*arguments)
    if torch._C._len_torch_dispatch_stack() or any(
        isinstance(x, Tensor) and type(x) not in (Tensor, nn.Parameter) for x in arguments
    ):
        return operator(*arguments)
    kernel: Callable[..., T] = getattr(operator, "_init_fn", operator)
    return kernel(*arguments)


def _norm_kernel(x: Tensor, *weights: Tensor) -> bool:
    """Return whether the kernels normalise the last dimension of `x` with `weights`, each one vector of its size."""
    return all(weight.shape == x.shape[-1:] for weight in weights) and _kernels(x, *weights)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """See `reference.rms_norm`."""
    if _norm_kernel(x, weight):
        from . import triton_ops

        y: Tensor = _run(triton_ops.rms_norm, x, weight, eps)
        return y
    if x.dtype == torch.float32:
        return F.rms_norm(x, weight.shape, weight, eps)
    return reference.rms_norm(x, weight, eps)  # torch's own rounds once at the end, Llama before the weight too


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """See `reference.add_rms_norm`; may overwrite `x`."""
    if x.shape == residual.shape and _norm_kernel(x, weight) and _kernels(x, residual):
        from . import triton_ops

        both: tuple[Tensor, Tensor] = _run(triton_ops.add_rms_norm, x, residual, weight, eps)
        return both
    h = add(x, residual)
    return rms_norm(h, weight, eps), h


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """See `reference.layer_norm`."""
    if _norm_kernel(x, weight, bias):
        from . import triton_ops

        y: Tensor = _run(triton_ops.add_layer_norm, x, None, weight, bias, eps)[0]
        return y
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def add_layer_norm(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """See `reference.add_layer_norm`; may overwrite `x`."""
    if x.shape == residual.shape and _norm_kernel(x, weight, bias) and _kernels(x, residual):
        from . import triton_ops

        both: tuple[Tensor, Tensor] = _run(triton_ops.add_layer_norm, x, residual, weight, bias, eps)
        return both
    h = add(x, residual)
    return F.layer_norm(h, weight.shape, weight, bias, eps), h


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """See `reference.rotate`."""
    if torch.is_grad_enabled() or x.shape[2] == 1:
        return reference.rotate(x, cos, sin)
    half = x.shape[-1] // 2
    out = x * cos
    out[..., :half] -= x[..., half:] * sin[..., :half]
    out[..., half:] += x[..., :half] * sin[..., half:]
    return out


def rotary(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """`rotate` of queries (B, H, S, D) and keys (B, G, S, D), in one launch if the kernels serve."""
    if _kernels(query, key, cos, sin):
        from . import triton_ops

        q, k = _run(triton_ops.rotary, query.transpose(1, 2), key.transpose(1, 2), cos[:, 0], sin[:, 0])
        return q.transpose(1, 2), k.transpose(1, 2)
    return rotate(query, cos, sin), rotate(key, cos, sin)


def pixel_shuffle_project(x: Tensor, projection: nn.Module, linear: nn.Module, scale: int) -> Tensor:
    """`reference.pixel_shuffle`, then `projection`, a module that applies `linear` and nothing else.

    A plain `nn.Linear` without bias may be fused with the shuffle; one that was wrapped or hooked is called.
    """
    if is_plain_linear(linear) and not projection._forward_hooks and _kernels(x, linear.weight):
        side = round(x.shape[1] ** 0.5)
        fits = side * side == x.shape[1] and side % scale == 0 and linear.weight.shape[1] == x.shape[2] * scale**2
        if fits and x.shape[2] % 16 == 0:
            from . import triton_ops

            fused: Tensor = _run(triton_ops.pixel_shuffle_project, x, linear.weight, scale)
            return fused
    out: Tensor = projection(reference.pixel_shuffle(x, scale))
    return out


def is_plain_linear(module: nn.Module, *, bias: bool = False) -> TypeGuard[nn.Linear]:
    """Return whether `module` is `nn.Linear` itself without hooks or adapters, and has a bias or not as asked."""
    return (
        type(module) is nn.Linear
        and (module.bias is not None) is bias
        and not module._forward_hooks
        and not module._forward_pre_hooks
    )


def project_together(x: Tensor, *modules: nn.Module) -> list[Tensor]:
    """Apply linear maps of one input, (…, K) to (…, N) each.

    Where the kernels serve and no gradient is recorded, this is one product with the joined weights of plain
    `nn.Linear` modules with bias: the results are views of one buffer, which the attention kernel reads as it lies.
    The weights are joined at every call (3.5 MB a layer of the 256M model): nothing tells that a kept copy is stale,
    since writes through `parameter.data` change no version.
    """
    plain = [module for module in modules if is_plain_linear(module, bias=True)]
    if len(plain) < len(modules) or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return [module(x) for module in modules]
    if not _kernels(x, *(module.weight for module in plain)):
        return [module(x) for module in modules]
    weight, bias = (torch.cat([getattr(m, name).detach() for m in plain]) for name in ("weight", "bias"))
    return list(F.linear(x, weight, bias).split([m.out_features for m in plain], -1))  # type: ignore[no-untyped-call]


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float,
    causal: bool = False,
    dropout: float = 0.0,
    implementation: str = "auto",
) -> Tensor:
    """See `reference.attention`; without the weights. With `causal`, query and key must have the same length, and a
    `mask` is bool (B, 1, 1, L), the keys that any query may see.

    `implementation` is one of `ATTENTION` other than "eager". "triton" raises ValueError for what its kernel cannot do;
    "auto" takes sdpa then, for a single query, where a kernel made for many rows has nothing to share, and where
    gradients are recorded, since the backward of the kernel is made of full (B, H, S, L) matrices. A mask or dropout
    that flash_attn does not take goes to sdpa as well.
    """
    if implementation == "flash_attention_2" and mask is None and query.dtype != torch.float32:
        return _flash_attention(query, key, value, scale, causal, dropout)
    asked = implementation == "triton"
    if asked or (implementation == "auto" and _takes_attention(query, key, value)):
        reason = _why_not_attention(query, key, value, mask, scale, dropout)
        if not reason:
            return _triton_attention(query, key, value, mask, scale, causal)
        if asked:
            raise ValueError(f"attn_implementation='triton': {reason}. Use 'sdpa' or 'eager'.")
    return _sdpa(query, key, value, mask, scale, causal, dropout)


def _takes_attention(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Return whether "auto" takes the kernel, if it can do what is asked."""
    records = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
    return query.shape[2] > 1 and not records and _kernels(query)


def _why_not_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, dropout: float
) -> str:
    dim = query.shape[3]
    if not 16 <= dim <= 128 or dim % 8:
        return f"head_dim {dim} is not supported; the kernel takes multiples of 8 from 16 to 128"
    if dropout > 0.0:
        return "the kernel has no dropout"
    if scale <= 0.0:
        return f"the scale must be positive, got {scale}"
    for name, other in (("key", key), ("value", value)):
        if other.dtype != query.dtype or other.device != query.device:
            return f"query is {query.dtype} on {query.device}, {name} {other.dtype} on {other.device}"
    batch, heads, queries, _ = query.shape
    if key.shape != value.shape or key.shape[0] != batch or key.shape[3] != dim or heads % key.shape[1]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (query, key, value))
        return f"query (B, H, S, D), key and value (B, G, L, D) with H a multiple of G were expected, got {shapes}"
    if mask is not None and (
        mask.dtype != torch.bool
        or mask.ndim != 4
        or mask.shape[1] != 1
        or any(
            given not in (1, size) for given, size in zip(mask.shape, (batch, 1, queries, key.shape[2]), strict=True)
        )
    ):
        return f"the kernel takes a bool mask (batch, 1, queries, keys), not {mask.dtype} {tuple(mask.shape)}"
    return why_not_triton(query.device, query.dtype)


def _triton_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, causal: bool
) -> Tensor:
    from . import triton_ops

    keep = None
    if mask is not None:
        keep = mask.expand(-1, -1, -1, key.shape[2])[:, 0]
        keep = (keep[:, 0].expand(query.shape[0], -1) if mask.shape[2] == 1 else keep).contiguous()
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    out: Tensor = _run(triton_ops.attention, q, k, v, keep, scale, causal)
    return out.transpose(1, 2)


def _sdpa(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, causal: bool, dropout: float
) -> Tensor:
    batch, heads, length, dim = query.shape
    groups = heads // key.shape[1]
    if causal and mask is not None:
        mask = reference.below_diagonal(length, key.shape[2], query.device) & mask
        causal = False
    if groups > 1 and length == 1 and (mask is None or mask.shape[1] == 1):
        # One query per sequence: the heads of a group become its rows, so the cache is read as it lies.
        query = query.view(batch, key.shape[1], groups, dim)
        out = F.scaled_dot_product_attention(query, key, value, mask, dropout, scale=scale)
        return out.reshape(batch, heads, 1, dim)
    return F.scaled_dot_product_attention(
        query, key, value, mask, dropout, is_causal=causal, scale=scale, enable_gqa=groups > 1
    )


def _flash_attention(query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool, dropout: float) -> Tensor:
    from flash_attn import flash_attn_func

    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    out: Tensor = flash_attn_func(q, k, v, dropout_p=dropout, softmax_scale=scale, causal=causal)
    return out.transpose(1, 2)


def masks_keys_alone(query: Tensor, implementation: str) -> bool:
    """Return whether causal attention to padded keys takes a mask of the keys as it is, (B, 1, 1, L).

    The others get one of every query and key, made once for all layers; for a kernel that would be twice the work.
    """
    return implementation == "triton" or (implementation == "auto" and _takes_attention(query, query, query))


def check_attention(implementation: str) -> None:
    """Raise ValueError for an unknown `attn_implementation`, ImportError for one whose package is not installed."""
    if implementation not in ATTENTION:
        raise ValueError(f"attn_implementation must be one of {', '.join(ATTENTION)}; got {shown(implementation)}.")
    package = {"triton": "triton", "flash_attention_2": "flash_attn"}.get(implementation)
    if package is not None:
        try:
            __import__(package)
        except ImportError as error:
            raise ImportError(
                f"attn_implementation={shown(implementation)} needs the package {package}, which is not installed. "
                "Install it, or use 'sdpa' or 'eager'."
            ) from error
