"""The key-value cache, alone."""

from __future__ import annotations

import pytest
import torch
from faster_smolvlm import SmolVLMTextConfig
from faster_smolvlm.modeling.kv_cache import KVCache

pytestmark = pytest.mark.usefixtures("one_thread", "no_gradients")

CONFIG = SmolVLMTextConfig(
    hidden_size=24, num_attention_heads=6, num_key_value_heads=2, head_dim=8, num_hidden_layers=2, vocab_size=10
)


def fill(cache, tokens, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pairs = [torch.randn(2, cache.batch_size, 2, tokens, 8, generator=generator) for _ in range(2)]
    return [cache.update(key, value, layer) for layer, (key, value) in enumerate(pairs)], pairs


def test_update_returns_views():
    cache = KVCache(CONFIG, 3, 10)
    fill(cache, 4)
    stored, (_, (key, value)) = fill(cache, 2, seed=1)
    assert cache.get_seq_length() == cache.get_seq_length(1) == 6
    keys, values = stored[1]
    assert keys.shape == (3, 2, 6, 8)
    assert torch.equal(keys[:, :, 4:], key)
    assert torch.equal(values[:, :, 4:], value)
    assert keys.data_ptr() == cache.keys[1].data_ptr()


def test_full_cache_is_an_error_or_grows():
    cache = KVCache(CONFIG, 1, 5)
    fill(cache, 4)
    with pytest.raises(ValueError, match="holds 5 tokens, but 6 are needed"):
        fill(cache, 2)
    cache = KVCache(CONFIG, 1, 5, growable=True)
    _, (first, _) = fill(cache, 4)
    stored, (second, _) = fill(cache, 2, seed=1)
    assert cache.max_length == 10
    assert torch.equal(stored[0][0], torch.cat((first[0], second[0]), 2))


def test_crop_and_reset():
    cache = KVCache(CONFIG, 1, 10)
    fill(cache, 6)
    cache.crop(9)
    assert cache.get_seq_length() == 6
    cache.crop(-2)
    assert cache.get_seq_length() == 4
    cache.crop(3)
    assert cache.get_seq_length() == 3
    cache.reset()
    assert cache.get_seq_length() == 0


def test_reorder_and_select():
    cache = KVCache(CONFIG, 3, 10)
    _, ((key, _), _) = fill(cache, 4)
    cache.reorder(torch.tensor([2, 0, 0]))
    assert torch.equal(cache.keys[0][:, :, :4], key[[2, 0, 0]])
    cache.batch_select(torch.tensor([0, 0, 1, 2]))
    assert cache.batch_size == 4
    assert torch.equal(cache.keys[0][:, :, :4], key[[2, 2, 0, 0]])
    fill(cache, 1)
    assert cache.get_seq_length() == 5


def test_another_batch_is_an_error():
    cache = KVCache(CONFIG, 3, 10)
    with pytest.raises(ValueError, match="made for a batch of 3, got one of 2"):
        cache.update(torch.zeros(2, 2, 1, 8), torch.zeros(2, 2, 1, 8), 0)
    with pytest.raises(ValueError, match="at least 1"):
        KVCache(CONFIG, 0, 10)


@pytest.mark.gradients
def test_gradients_reach_the_new_tokens():
    cache = KVCache(CONFIG, 1, 10)
    for _ in range(2):  # the second time onto tokens that are there already
        key = torch.randn(1, 2, 3, 8, requires_grad=True)
        keys, values = cache.update(key, key * 2, 0)
        (keys.sum() + values.sum()).backward()
        assert torch.equal(key.grad, torch.full_like(key, 3.0))
    assert cache.get_seq_length() == 6
    assert not cache.keys[0].requires_grad
