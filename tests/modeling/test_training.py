"""Loss and gradients against Transformers: M10 and M16."""

from __future__ import annotations

import pytest
import torch

pytestmark = [pytest.mark.gradients, pytest.mark.parity, pytest.mark.usefixtures("one_thread", "no_gradients")]


def gradients(model, **inputs):
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


def assert_same_gradients(ours, theirs):
    assert ours.keys() == theirs.keys()
    missing = [name for name, gradient in ours.items() if gradient is None]
    assert not missing
    for name, gradient in ours.items():
        torch.testing.assert_close(
            gradient, theirs[name], atol=1e-5, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_m10_loss(tiny, batch):
    labels = batch.input_ids.masked_fill(batch.input_ids == 90, -100)
    for more in ({}, {"num_items_in_batch": 7}, {"num_items_in_batch": torch.tensor(9)}):
        for target in (labels, batch.input_ids):
            theirs = tiny.theirs(**batch.inputs(labels=target, **more)).loss
            ours = tiny.ours(**batch.inputs(labels=target, **more)).loss
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_m10_loss_by_hand(tiny, batch):
    labels = batch.input_ids.clone()
    labels[:, :15] = -100
    out = tiny.ours(**batch.inputs(labels=labels))
    scores = out.logits[:, 14:-1].log_softmax(-1).gather(2, labels[:, 15:, None])
    torch.testing.assert_close(out.loss, -scores.mean(), atol=1e-5, rtol=0)


def test_m10_loss_of_bfloat16_is_float32(tiny, batch):
    model = tiny.copy().ours.to(torch.bfloat16)
    assert model(**batch.inputs(labels=batch.input_ids)).loss.dtype == torch.float32


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_m16_gradients(tiny, batch, attention):
    pair = tiny.copy().use(attention)
    loss, ours = gradients(pair.ours.train(), **batch.inputs(labels=batch.input_ids))
    expected, theirs = gradients(pair.theirs.train(), **batch.inputs(labels=batch.input_ids))
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)
    assert_same_gradients(ours, theirs)


@pytest.mark.parametrize("form", ["bool", "float"])
def test_m16_gradients_through_a_4d_mask(tiny, batch, form):
    pair = tiny.copy()
    mask = torch.ones(20, 20, dtype=torch.bool).tril()
    mask[17:, 14:17] = False
    positions = torch.arange(20)[None].repeat(2, 1)
    positions[:, 17:] -= 3
    if form == "float":
        mask = torch.zeros(20, 20).masked_fill(~mask, torch.finfo(torch.float32).min)
    inputs = batch.inputs(attention_mask=mask.expand(2, 1, 20, 20), position_ids=positions, labels=batch.input_ids)
    assert_same_gradients(gradients(pair.ours, **inputs)[1], gradients(pair.theirs, **inputs)[1])


def test_m16_gradients_of_a_left_padded_batch_are_finite(tiny, batch):
    mask = torch.ones(2, 20, dtype=torch.long)
    mask[0, :4] = 0
    labels = batch.input_ids.masked_fill(mask == 0, -100)
    pair = tiny.copy()
    inputs = batch.inputs(attention_mask=mask, labels=labels)
    assert_same_gradients(gradients(pair.ours, **inputs)[1], gradients(pair.theirs, **inputs)[1])


def test_m16_gradient_checkpointing(tiny, batch):
    pair = tiny.copy()
    pair.ours.train()
    _, plain = gradients(pair.ours, **batch.inputs(labels=batch.input_ids))
    pair.ours.gradient_checkpointing_enable({"use_reentrant": False})
    assert pair.ours.is_gradient_checkpointing
    out = pair.ours(**batch.inputs(labels=batch.input_ids, use_cache=True))
    assert out.past_key_values is None
    _, recomputed = gradients(pair.ours, **batch.inputs(labels=batch.input_ids))
    assert_same_gradients(recomputed, plain)
    pair.ours.gradient_checkpointing_disable()
    assert not pair.ours.is_gradient_checkpointing
    with pytest.raises(ValueError, match="use_reentrant"):
        pair.ours.gradient_checkpointing_enable({"use_reentrant": True})


def test_a_few_steps_lower_the_loss(tiny, batch):
    model = tiny.copy().ours.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = model(**batch.inputs(labels=batch.input_ids)).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    # The weights were mapped from a file; training must not have written to it.
    fresh = type(model).from_pretrained(tiny.directory)
    assert not torch.equal(fresh.lm_head.weight, model.lm_head.weight)
    assert torch.equal(fresh.lm_head.weight, tiny.ours.lm_head.weight)
