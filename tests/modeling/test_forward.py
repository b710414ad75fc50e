"""The forward pass of the whole model against Transformers: M07 to M13 and M17."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import transformers
from faster_smolvlm import SmolVLMForConditionalGeneration, SmolVLMModel

from tests.helpers.tiny_models import IMAGE

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("one_thread", "no_gradients")]

TOLERANCE = 1e-4


def close(ours, theirs, tolerance=TOLERANCE):
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


def both_raise(tiny, match, **inputs):
    for model in (tiny.theirs, tiny.ours):
        with pytest.raises(ValueError, match=match):
            model(**inputs)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_m09_logits(tiny, batch, attention):
    tiny.use(attention)
    theirs, ours = tiny.theirs(**batch.inputs()), tiny.ours(**batch.inputs())
    assert theirs.logits.std() > 0.3  # otherwise any model would be close
    close(ours.logits, theirs.logits)
    close(ours.image_hidden_states.last_hidden_state, theirs.image_hidden_states.last_hidden_state)


def test_m09_text_alone(tiny, batch):
    ids = batch.input_ids.clamp(max=80)
    close(tiny.ours(ids).logits, tiny.theirs(ids).logits)


def test_m09_image_tokens_without_pictures_are_text(tiny, batch):
    close(tiny.ours(batch.input_ids).logits, tiny.theirs(batch.input_ids).logits)


def test_m09_bfloat16(tiny, batch):
    theirs = transformers.SmolVLMForConditionalGeneration.from_pretrained(tiny.directory, dtype=torch.bfloat16)
    ours = SmolVLMForConditionalGeneration.from_pretrained(tiny.directory, dtype=torch.bfloat16)
    out = ours(**batch.inputs())
    assert out.logits.dtype == torch.bfloat16
    close(out.logits.float(), theirs(**batch.inputs()).logits.float(), 0.1)
    close(out.logits.float(), tiny.ours(**batch.inputs()).logits, 0.2)


def test_m09_greedy_steps_with_a_cache(tiny, batch):
    """Twelve greedy steps, each side by its own cache, ids and scores."""
    theirs, ours = tiny.theirs(**batch.inputs(use_cache=True)), tiny.ours(**batch.inputs(use_cache=True))
    for step in range(12):
        close(ours.logits[:, -1], theirs.logits[:, -1])
        token = theirs.logits[:, -1:].argmax(-1)
        assert torch.equal(ours.logits[:, -1:].argmax(-1), token)
        theirs = tiny.theirs(token, past_key_values=theirs.past_key_values)
        ours = tiny.ours(token, past_key_values=ours.past_key_values)
        assert ours.past_key_values.get_seq_length() == theirs.past_key_values.get_seq_length() == 21 + step


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_batches(tiny, batch, attention, side):
    tiny.use(attention)
    mask = torch.ones(2, 20, dtype=torch.long)
    padded = slice(0, 4) if side == "left" else slice(14, 20)
    mask[0, padded] = 0
    theirs, ours = tiny.theirs(**batch.inputs(attention_mask=mask)), tiny.ours(**batch.inputs(attention_mask=mask))
    close(ours.logits[mask.bool()], theirs.logits[mask.bool()])
    kept = batch.input_ids[:1, mask[0].bool()]
    close(ours.logits[:1, mask[0].bool()], tiny.ours(kept, pixel_values=batch.pixel_values[:1]).logits)


def test_left_padded_steps_with_positions(tiny, batch):
    """What generation passes: position ids that count real tokens, and a mask that grows with the cache."""
    mask = torch.ones(2, 20, dtype=torch.long)
    mask[0, :4] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    more = {"attention_mask": mask, "position_ids": positions, "use_cache": True}
    theirs, ours = tiny.theirs(**batch.inputs(**more)), tiny.ours(**batch.inputs(**more))
    for step in range(3):
        close(ours.logits[:, -1], theirs.logits[:, -1])
        mask = torch.cat((mask, torch.ones(2, 1, dtype=torch.long)), 1)
        token = torch.tensor([[7 + step], [9]])
        more = {"attention_mask": mask, "position_ids": mask.sum(1, keepdim=True) - 1}
        theirs = tiny.theirs(token, past_key_values=theirs.past_key_values, **more)
        ours = tiny.ours(token, past_key_values=ours.past_key_values, **more)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_prompt_in_chunks(tiny, batch, attention):
    """Several new tokens onto a cache that holds some already."""
    tiny.use(attention)
    whole = tiny.ours(**batch.inputs()).logits
    first = tiny.ours(batch.input_ids[:, :14], pixel_values=batch.pixel_values, use_cache=True)
    second = tiny.ours(batch.input_ids[:, 14:], past_key_values=first.past_key_values)
    close(torch.cat((first.logits, second.logits), 1), whole)


@pytest.mark.parametrize("form", ["bool", "float"])
def test_4d_mask_and_positions(tiny, batch, form):
    """A custom mask (two questions after the same pictures, blind to each other), used as it is."""
    mask = torch.ones(20, 20, dtype=torch.bool).tril()
    mask[17:, 14:17] = False
    positions = torch.arange(20)[None].repeat(2, 1)
    positions[:, 17:] -= 3
    if form == "float":
        mask = torch.zeros(20, 20).masked_fill(~mask, torch.finfo(torch.float32).min)
    more = {"attention_mask": mask.expand(2, 1, 20, 20), "position_ids": positions}
    ours = tiny.ours(**batch.inputs(**more)).logits
    close(ours, tiny.theirs(**batch.inputs(**more)).logits)
    alone = torch.cat((batch.input_ids[:, :14], batch.input_ids[:, 17:]), 1)
    close(ours[:, 17:], tiny.ours(alone, pixel_values=batch.pixel_values).logits[:, 14:])
    close(tiny.use("eager").ours(**batch.inputs(**more)).logits, ours)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_by_positions(tiny, batch, attention):
    tiny.use(attention)
    positions = torch.arange(20)[None].repeat(2, 1)
    positions[0, 15:] -= 15
    positions[1, 16:] -= 16
    more = {"position_ids": positions, "use_cache": False}
    close(tiny.ours(**batch.inputs(**more)).logits, tiny.theirs(**batch.inputs(**more)).logits)


def test_attention_mask_of_another_length_is_an_error(tiny, batch):
    with pytest.raises(ValueError, match=r"attention_mask must be 4-D, or have the shape \(batch, 20\).*got \(2, 19\)"):
        tiny.ours(**batch.inputs(attention_mask=torch.ones(2, 19)))


def test_m07_tokens_and_features_that_do_not_match(tiny, batch):
    inputs = batch.inputs(pixel_values=batch.pixel_values[:, :1])
    both_raise(tiny, "Image features and image tokens do not match, tokens: 16, features: 8", **inputs)
    ids = batch.input_ids.clamp(max=80)
    both_raise(tiny, "tokens: 0, features: 16", input_ids=ids, pixel_values=batch.pixel_values)


def test_m07_ids_and_embeddings(tiny, batch):
    both_raise(tiny, "You must specify exactly one of input_ids or inputs_embeds")
    embeddings = torch.randn(2, 20, 24)
    both_raise(
        tiny,
        "You must specify exactly one of input_ids or inputs_embeds",
        input_ids=batch.input_ids,
        inputs_embeds=embeddings,
    )


def test_m08_inputs_embeds(tiny, batch):
    embeddings = tiny.ours.get_input_embeddings()(batch.input_ids)
    inputs = {"inputs_embeds": embeddings, "pixel_values": batch.pixel_values}
    ours = tiny.ours(**inputs).logits
    close(ours, tiny.theirs(**inputs).logits)
    close(ours, tiny.ours(**batch.inputs()).logits)


def test_m11_logits_to_keep(tiny, batch):
    mask = torch.zeros(2, 20, dtype=torch.bool)
    mask[0, 3], mask[1, 5:9] = True, True
    kept = [0, 1, 7, torch.tensor([2, 5, 19]), torch.tensor([[1, 2], [19, 0]]), mask]
    for positions in kept:
        theirs = tiny.theirs(**batch.inputs(logits_to_keep=positions)).logits
        ours = tiny.ours(**batch.inputs(logits_to_keep=positions)).logits
        assert ours.shape == theirs.shape
        close(ours, theirs)


@pytest.mark.parametrize("labelled", [False, True])
def test_m12_tuple_and_fields(tiny, batch, labelled):
    more = {"labels": batch.input_ids} if labelled else {}
    for wanted in ({}, {"output_hidden_states": True}, {"use_cache": False}):
        theirs, ours = tiny.theirs(**batch.inputs(**more, **wanted)), tiny.ours(**batch.inputs(**more, **wanted))
        assert list(ours.keys()) == list(theirs.keys())
        theirs = tiny.theirs(**batch.inputs(**more, **wanted, return_dict=False))
        ours = tiny.ours(**batch.inputs(**more, **wanted, return_dict=False))
        assert isinstance(ours, tuple)
        assert len(ours) == len(theirs)
        close(ours[0], theirs[0])


def test_m12_access(tiny, batch):
    out = tiny.ours(**batch.inputs())
    assert out.logits is out["logits"] is out[0]
    assert out[:1] == (out.logits,)
    assert out.loss is None
    assert "loss" not in out
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = out.nothing_of_the_kind
    with pytest.raises(KeyError):
        _ = out["loss"]
    again = pickle.loads(pickle.dumps(tiny.ours.get_image_features(batch.pixel_values)))
    assert torch.equal(again.last_hidden_state, out.image_hidden_states.last_hidden_state)
    assert copy.deepcopy(again).keys() == again.keys()


def test_unknown_arguments_are_an_error(tiny, batch):
    with pytest.raises(TypeError, match="pixel_vlaues"):
        tiny.ours(batch.input_ids, pixel_vlaues=batch.pixel_values)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_m13_hidden_states_and_attentions(tiny, batch, attention):
    tiny.use(attention)
    more = {"output_hidden_states": True, "output_attentions": True}
    theirs, ours = tiny.theirs(**batch.inputs(**more)), tiny.ours(**batch.inputs(**more))
    assert len(ours.hidden_states) == len(theirs.hidden_states) == 4
    assert len(ours.attentions) == len(theirs.attentions) == (3 if attention == "eager" else 0)
    for state, expected in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        close(state, expected)
    for weights, expected in zip(ours.attentions, theirs.attentions, strict=True):
        close(weights, expected, 1e-6)
    assert torch.equal(tiny.ours.lm_head(ours.hidden_states[-1]), ours.logits)


def test_m17_encoded_pictures(tiny, batch):
    expected = tiny.ours(**batch.inputs()).logits
    encoded = tiny.ours.get_image_features(batch.pixel_values)
    assert torch.equal(tiny.ours(batch.input_ids, mm_encoder_outputs={"image": encoded}).logits, expected)
    theirs = {"image": tiny.theirs.get_image_features(batch.pixel_values)}
    close(tiny.theirs(batch.input_ids, mm_encoder_outputs=theirs).logits, expected)
    # Transformers documents the features alone as accepted, but fails on them.
    features = torch.cat(encoded.pooler_output)
    assert torch.equal(tiny.ours(batch.input_ids, mm_encoder_outputs=features).logits, expected)


def test_m17_pictures_twice(tiny, batch):
    for model in (tiny.theirs, tiny.ours):
        encoded = {"image": model.get_image_features(batch.pixel_values)}
        with pytest.raises(ValueError, match="cannot specify both pixel_values and mm_encoder_outputs"):
            model(**batch.inputs(mm_encoder_outputs=encoded))


def test_base_model(tiny, batch):
    base = SmolVLMModel.from_pretrained(tiny.directory)
    theirs, ours = tiny.theirs.model(**batch.inputs()), base(**batch.inputs())
    assert list(ours.keys()) == list(theirs.keys())
    close(ours.last_hidden_state, theirs.last_hidden_state)
    assert isinstance(base(**batch.inputs(return_dict=False)), tuple)
    assert base.image_seq_len == tiny.theirs.model.image_seq_len == 4


def test_use_cache_follows_the_config(tiny, batch):
    pair = tiny.copy()
    pair.ours.config.use_cache = pair.theirs.config.use_cache = False
    assert pair.ours(**batch.inputs()).past_key_values is None
    assert pair.theirs(**batch.inputs()).past_key_values is None
    assert pair.ours(**batch.inputs(use_cache=True)).past_key_values.get_seq_length() == 20


def test_generated_image_token_is_text(tiny, batch):
    """With a cache, an image token that the model itself wrote is an ordinary token."""
    out = tiny.ours(**batch.inputs(use_cache=True))
    step = tiny.ours(torch.full((2, 1), IMAGE), past_key_values=out.past_key_values)
    assert step.logits.isfinite().all()
