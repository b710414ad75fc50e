"""The vision tower and the connector against Transformers: M01 to M06."""

from __future__ import annotations

import pytest
import torch
from faster_smolvlm import SmolVLMVisionConfig, SmolVLMVisionTransformer
from faster_smolvlm.modeling.modeling_vision import SmolVLMVisionEmbeddings
from faster_smolvlm.modeling.reference import pixel_shuffle
from transformers.models.smolvlm import modeling_smolvlm as theirs_module

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("one_thread", "no_gradients")]

TOLERANCE = 1e-4


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("size", [(32, 32), (64, 64), (16, 48), (37, 39)])
def test_m01_full_mask(tiny, attention, size):
    tiny.use(attention)
    pixels = torch.randn(3, 3, *size)
    theirs = tiny.theirs.model.vision_model(pixels, output_hidden_states=True, output_attentions=True)
    ours = tiny.ours.model.vision_model(pixels, output_hidden_states=True, output_attentions=True)
    torch.testing.assert_close(ours.last_hidden_state, theirs.last_hidden_state, atol=TOLERANCE, rtol=0)
    assert len(ours.hidden_states) == len(theirs.hidden_states) == 3
    for state, expected in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        torch.testing.assert_close(state, expected, atol=TOLERANCE, rtol=0)
    assert len(ours.attentions) == len(theirs.attentions) == (2 if attention == "eager" else 0)
    for weights, expected in zip(ours.attentions, theirs.attentions, strict=True):
        torch.testing.assert_close(weights, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_m02_partial_mask(tiny, attention):
    tiny.use(attention)
    pixels = torch.randn(3, 3, 32, 32)
    mask = torch.zeros(3, 4, 4, dtype=torch.bool)
    mask[0, :2, :3] = True
    mask[1, :4, :1] = True
    mask[2] = True
    theirs = tiny.theirs.model.vision_model(pixels, mask).last_hidden_state
    ours = tiny.ours.model.vision_model(pixels, mask).last_hidden_state
    real = mask.flatten(1)
    torch.testing.assert_close(ours[real], theirs[real], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("image_size", "patch_size"), [(512, 16), (384, 14), (32, 8)])
def test_m02_position_ids(image_size, patch_size):
    """The position of every patch, for every count of rows up to the table's side, some beyond, and ragged masks."""
    fields = {"image_size": image_size, "patch_size": patch_size, "hidden_size": 2, "num_attention_heads": 1}
    side = image_size // patch_size
    theirs = theirs_module.SmolVLMVisionEmbeddings(theirs_module.SmolVLMVisionConfig(**fields))
    ours = SmolVLMVisionEmbeddings(SmolVLMVisionConfig(**fields))
    ours.load_state_dict(theirs.state_dict())
    for module in (theirs, ours):
        # The position table holds its own row numbers, so that the output is the position ids.
        module.patch_embedding.weight.zero_()
        module.patch_embedding.bias.zero_()
        module.position_embedding.weight.copy_(torch.arange(side * side)[:, None].expand(-1, 2))
    generator = torch.Generator().manual_seed(0)
    for total in (side, side + 5):
        counts = torch.randint(1, total + 1, (40, 2), generator=generator)
        counts[:4] = torch.tensor([[1, 1], [total, total], [1, total], [side, 2]])
        mask = torch.zeros(len(counts), total, total, dtype=torch.bool)
        for row, (height, width) in enumerate(counts.tolist()):
            mask[row, :height, :width] = True
        pixels = torch.zeros(len(counts), 3, total * patch_size, total * patch_size)
        assert torch.equal(ours(pixels, mask), theirs(pixels, mask))
    full = torch.ones(1, side, side, dtype=torch.bool)
    square = torch.zeros(1, 3, image_size, image_size)
    assert torch.equal(ours(square, None), theirs(square, full))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_m03_pixel_shuffle(scale):
    tokens = torch.arange(2 * 144 * 5, dtype=torch.float32).reshape(2, 144, 5)
    expected = theirs_module.SmolVLMConnector.pixel_shuffle(None, tokens, scale)
    assert torch.equal(pixel_shuffle(tokens, scale), expected)


def test_m04_grid_that_is_no_square(tiny):
    pixels = torch.randn(1, 1, 3, 16, 48)
    with pytest.raises(RuntimeError, match="is invalid"):
        tiny.theirs.get_image_features(pixels)
    with pytest.raises(RuntimeError, match="is invalid"):
        tiny.ours.get_image_features(pixels)


def test_m04_side_that_is_no_multiple_of_the_scale(tiny):
    with pytest.raises(RuntimeError, match="multiple of 2, got 9 patches"):
        tiny.ours.get_image_features(torch.randn(1, 1, 3, 24, 24))


def test_pixel_attention_mask(tiny):
    pixels = torch.randn(2, 2, 3, 32, 32)
    mask = torch.zeros(2, 2, 32, 32, dtype=torch.long)
    mask[0, 0], mask[0, 1, :9, :20], mask[1, 0, :32, :1], mask[1, 1, :16] = 1, 1, 1, 1
    for form in (mask, mask.bool()):
        theirs = tiny.theirs.get_image_features(pixels, form)
        ours = tiny.ours.get_image_features(pixels, form)
        torch.testing.assert_close(ours.last_hidden_state, theirs.last_hidden_state, atol=TOLERANCE, rtol=0)
        for rows, expected in zip(ours.pooler_output, theirs.pooler_output, strict=True):
            torch.testing.assert_close(rows, expected, atol=TOLERANCE, rtol=0)


def test_m05_zero_pictures_are_padding(tiny):
    pixels = torch.randn(2, 3, 3, 32, 32)
    pixels[0, 2] = pixels[1, 1] = pixels[1, 2] = 0.0
    theirs, ours = tiny.theirs.get_image_features(pixels), tiny.ours.get_image_features(pixels)
    assert [len(rows) for rows in ours.pooler_output] == [len(rows) for rows in theirs.pooler_output] == [8, 4]
    alone = tiny.ours.get_image_features(pixels[1:, :1])
    torch.testing.assert_close(ours.pooler_output[1], alone.pooler_output[0], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(torch.cat(ours.pooler_output), torch.cat(theirs.pooler_output), atol=TOLERANCE, rtol=0)


def test_m06_only_zero_pictures_leave_the_first(tiny):
    pixels = torch.zeros(2, 2, 3, 32, 32)
    theirs, ours = tiny.theirs.get_image_features(pixels), tiny.ours.get_image_features(pixels)
    assert [len(rows) for rows in ours.pooler_output] == [len(rows) for rows in theirs.pooler_output] == [4, 0]
    torch.testing.assert_close(ours.pooler_output[0], theirs.pooler_output[0], atol=TOLERANCE, rtol=0)


def test_four_dimensions_are_an_error(tiny):
    for model in (tiny.theirs, tiny.ours):
        with pytest.raises(ValueError, match="not enough"):
            model.get_image_features(torch.randn(1, 3, 32, 32))


def test_vision_transformer_alone(tiny):
    alone = SmolVLMVisionTransformer.from_pretrained(tiny.directory, config=tiny.ours.config.vision_config)
    pixels = torch.randn(1, 3, 32, 32)
    expected = tiny.theirs.model.vision_model(pixels, return_dict=False)
    ours = alone(pixels, return_dict=False)
    assert isinstance(ours, tuple)
    torch.testing.assert_close(ours[0], expected[0], atol=TOLERANCE, rtol=0)
