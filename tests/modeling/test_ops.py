"""Each step in `ops`, with and without gradients, against its plain definition in `reference`."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from faster_smolvlm.modeling import ops, reference

pytestmark = pytest.mark.usefixtures("one_thread", "no_gradients")

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(params=[False, True], ids=["plain", "recording"])
def _recording(request):
    with torch.set_grad_enabled(request.param):
        yield


def close(actual, expected):
    """Equal up to the last bits of the dtype."""
    assert actual.dtype == expected.dtype
    torch.testing.assert_close(
        actual, expected, atol=4 * torch.finfo(actual.dtype).eps, rtol=4 * torch.finfo(actual.dtype).eps
    )


@pytest.mark.usefixtures("_recording")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 5), (2, 123, 64)])
def test_norms(dtype, shape):
    x, weight, bias = torch.randn(shape).to(dtype), torch.randn(shape[-1]).to(dtype), torch.randn(shape[-1]).to(dtype)
    close(ops.rms_norm(x, weight, 1e-5), reference.rms_norm(x, weight, 1e-5))
    close(ops.layer_norm(x, weight, bias, 1e-6), reference.layer_norm(x, weight, bias, 1e-6))


@pytest.mark.usefixtures("_recording")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 2, 77])
def test_rotate(dtype, length):
    x = torch.randn(2, length, 3, 8).transpose(1, 2).to(dtype)
    angles = torch.randn(2, 1, length, 4).repeat(1, 1, 1, 2)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    before = x.clone()
    assert torch.equal(ops.rotate(x, cos, sin), reference.rotate(x, cos, sin))
    assert torch.equal(x, before)


@pytest.mark.usefixtures("_recording")
@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("gelu", F.gelu),
        ("gelu_pytorch_tanh", lambda x: F.gelu(x, approximate="tanh")),
        ("relu", F.relu),
        ("silu", F.silu),
    ],
)
def test_activations(name, plain):
    x = torch.randn(3, 50)
    assert torch.equal(ops.activation(name)(x.clone()), plain(x))


def test_unknown_activation():
    with pytest.raises(ValueError, match="hidden_act 'mish' is not supported; known are gelu"):
        ops.activation("mish")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "groups"), [(6, 6), (6, 2), (9, 3)])
@pytest.mark.parametrize(
    ("queries", "keys", "mask"), [(1, 9, None), (9, 9, "causal"), (1, 9, "keys"), (4, 9, "full"), (9, 9, "added")]
)
def test_attention(dtype, heads, groups, queries, keys, mask):
    query, key, value = (
        torch.randn(2, h, n, 8).to(dtype) for h, n in ((heads, queries), (groups, keys), (groups, keys))
    )
    given = None
    if mask == "keys":
        given = torch.ones(2, 1, 1, keys, dtype=torch.bool)
        given[0, ..., :3] = False
    elif mask == "full":
        given = torch.rand(2, heads, queries, keys) > 0.3
        given[..., 0] = True
    elif mask == "added":
        given = torch.randn(2, 1, queries, keys).to(dtype)
    options = {"scale": 0.3, "causal": mask == "causal"}
    expected, _ = reference.attention(
        query.float(),
        key.float(),
        value.float(),
        given if given is None or given.dtype == torch.bool else given.float(),
        **options,
    )
    actual = ops.attention(query, key, value, given, **options)
    assert actual.shape == (2, heads, queries, 8)
    torch.testing.assert_close(actual.float(), expected, atol=1e-5 if dtype == torch.float32 else 0.03, rtol=0)
