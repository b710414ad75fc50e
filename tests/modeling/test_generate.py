"""`generate` against Transformers' own, on the same random weights: ids, scores, inputs, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from faster_smolvlm import GenerationConfig

from tests.helpers.generate_pair import EOS, IMAGE, PAD, TILES, an_early_token, batch, both, equal
from tests.helpers.generation import byte_level_tokenizer

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("one_thread")]


def test_the_random_model_says_different_things(models: Any) -> None:
    ids = equal(models, batch(5, 9), max_new_tokens=20)
    assert len(set(ids[:, -20:].flatten().tolist())) > 10


@pytest.mark.parametrize("lengths", [(6,), (3, 11), (9, 2, 5)])
@pytest.mark.parametrize("pictures", [0, 1, TILES])
def test_greedy(models: Any, lengths: tuple[int, ...], pictures: int) -> None:
    equal(models, batch(*lengths, pictures=pictures), max_new_tokens=15)


def test_a_row_of_a_padded_batch_says_what_it_says_alone(models: Any) -> None:
    together = models[1].generate(**batch(3, 11), max_new_tokens=10)
    inputs = batch(3, 11)
    alone = {key: value[:1] for key, value in inputs.items()}
    alone["input_ids"], alone["attention_mask"] = alone["input_ids"][:, 8:], alone["attention_mask"][:, 8:]
    assert torch.equal(models[1].generate(**alone, max_new_tokens=10)[0, -10:], together[0, -10:])


def test_rows_that_end_early_are_padded(models: Any) -> None:
    inputs = batch(5, 3, 8, 4, 6)
    for eos in (an_early_token(models, inputs), [an_early_token(models, inputs, step) for step in (2, 5)]):
        ids = equal(models, inputs, max_new_tokens=12, eos_token_id=eos)
        assert (ids[:, -1] == PAD).any()
        equal(models, inputs, max_new_tokens=12, eos_token_id=eos, pad_token_id=9)
        equal(models, inputs, max_new_tokens=12, eos_token_id=eos, min_new_tokens=7)
        equal(models, inputs, max_new_tokens=12, eos_token_id=eos, stopping_criteria=[lambda ids, scores: False])


def test_mask_is_worked_out_from_padding_tokens(models: Any) -> None:
    inputs = batch(3, 8)
    del inputs["attention_mask"]
    equal(models, inputs, max_new_tokens=8)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.6},
        {"top_k": 3},
        {"top_k": 0, "top_p": 0.7},
        {"top_p": 0.9, "temperature": 1.7},
        {"min_p": 0.1, "top_k": 0},
        {"repetition_penalty": 1.4},
        {"no_repeat_ngram_size": 2, "top_k": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("copies", [1, 3])
def test_drawing_with_the_same_seed_gives_the_same_ids(models: Any, settings: dict[str, Any], copies: int) -> None:
    inputs = batch(4, 7)
    for seed in range(2):
        ids = equal(
            models, inputs, seed=seed, do_sample=True, num_return_sequences=copies, max_new_tokens=12, **settings
        )
        assert ids.shape == (2 * copies, inputs["input_ids"].shape[1] + 12)


def test_drawing_while_rows_end_early(models: Any) -> None:
    inputs = batch(4, 7, 5)
    eos = [*range(10, 90)]
    ended = 0
    for seed in range(6):
        ids = equal(
            models, inputs, seed=seed, do_sample=True, num_return_sequences=2, max_new_tokens=15, eos_token_id=eos
        )
        ended += int((ids[:, -1] == PAD).sum())
    assert ended > 10


def test_seed_and_generator(models: Any) -> None:
    model, inputs = models[1], batch(4)
    settings = {"do_sample": True, "max_new_tokens": 10}
    first = model.generate(**inputs, **settings, seed=5)
    assert torch.equal(first, model.generate(**inputs, **settings, generator=torch.Generator().manual_seed(5)))
    assert not torch.equal(first, model.generate(**inputs, **settings, seed=6))
    with pytest.raises(ValueError, match="seed or generator"):
        model.generate(**inputs, **settings, seed=5, generator=torch.Generator())


@pytest.mark.parametrize("settings", [{"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 1}, {"min_new_tokens": 9}])
def test_greedy_with_processors(models: Any, settings: dict[str, Any]) -> None:
    equal(models, batch(4, 9), max_new_tokens=14, **settings)


@pytest.mark.parametrize("more", [{}, {"engine": "torch"}, {"num_beams": 3}, {"do_sample": True, "top_k": 4}], ids=str)
def test_forbidden_tokens(models: Any, more: dict[str, Any]) -> None:
    inputs = batch(5, 9, 3)
    theirs, ours = models
    engine = {name: value for name, value in more.items() if name == "engine"}
    more = {name: value for name, value in more.items() if name != "engine"} | {"max_new_tokens": 10}
    free = theirs.generate(**inputs, **{**more, "do_sample": False})
    said = [row[-10:].tolist() for row in free]
    last = int(inputs["input_ids"][0, -1])
    for settings in (
        {"suppress_tokens": [said[0][2], said[1][0], EOS]},
        {"begin_suppress_tokens": [said[0][0], said[0][1]], "suppress_tokens": (said[2][4],)},
        {"bad_words_ids": [[last, said[0][0]], said[1][2:5], [said[2][3]], [EOS]], "min_new_tokens": 2},
        {"bad_words_ids": [[EOS]], "eos_token_id": [EOS, said[0][1]]},
    ):
        torch.manual_seed(4)
        expected = theirs.generate(**inputs, **more, **settings)
        assert not torch.equal(expected, free)
        torch.manual_seed(4)
        assert torch.equal(ours.generate(**inputs, **more, **settings, **engine), expected)
        if not engine and "num_beams" not in more:
            assert ours.generation_engine.name == "native"


def test_forbidden_tokens_after_embeddings_alone(models: Any) -> None:
    theirs, ours = models
    embeds = theirs.get_input_embeddings()(batch(6, pictures=0)["input_ids"])
    call = {"inputs_embeds": embeds, "max_new_tokens": 8}
    said = theirs.generate(**call)[0].tolist()
    for settings in ({"begin_suppress_tokens": said[:1]}, {"bad_words_ids": [said[1:3], said[:1]]}):
        expected = theirs.generate(**call, **settings)
        assert expected.tolist() != [said]
        assert torch.equal(ours.generate(**call, **settings), expected)


def test_custom_processors_and_criteria_of_transformers(models: Any) -> None:
    inputs = batch(4, 9, 6)
    processors = transformers.LogitsProcessorList(
        [transformers.SuppressTokensLogitsProcessor(list(range(100))), lambda ids, scores: scores.roll(1, -1)]
    )
    equal(models, inputs, max_new_tokens=10, logits_processor=processors)
    stop = an_early_token(models, inputs)
    criteria = transformers.StoppingCriteriaList(
        [transformers.MaxLengthCriteria(inputs["input_ids"].shape[1] + 9), transformers.EosTokenCriteria(stop)]
    )
    equal(models, inputs, max_new_tokens=20, stopping_criteria=criteria)


@pytest.mark.parametrize("do_sample", [False, True])
def test_scores_and_logits(models: Any, do_sample: bool) -> None:
    inputs = batch(4, 9)
    settings = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True, "max_new_tokens": 8}
    eos = an_early_token(models, inputs)
    theirs, ours = both(
        models, inputs, seed=1, do_sample=do_sample, repetition_penalty=1.2, eos_token_id=eos, **settings
    )
    assert torch.equal(theirs.sequences, ours.sequences)
    assert torch.equal(ours["sequences"], ours[0])
    for name in ("scores", "logits"):
        assert len(theirs[name]) == len(ours[name])
        for expected, actual in zip(theirs[name], ours[name], strict=True):
            torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)
    assert ours.past_key_values.get_seq_length() == theirs.past_key_values.get_seq_length()
    bare = models[1].generate(**inputs, max_new_tokens=3, return_dict_in_generate=True)
    assert bare.scores is None
    assert list(bare) == ["sequences", "past_key_values"]


def test_lengths(models: Any) -> None:
    inputs = batch(4, 9)
    length = inputs["input_ids"].shape[1]
    equal(models, inputs, max_length=length + 3)
    equal(models, inputs, max_length=length + 9, min_length=length + 5, eos_token_id=an_early_token(models, inputs, 2))
    with pytest.warns(UserWarning, match="max_new_tokens"):
        assert equal(models, inputs).shape[1] == length + 20
    for model in models:
        with pytest.raises(ValueError, match="max_length"):
            model.generate(**inputs, max_length=length)


def test_stop_strings(models: Any) -> None:
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=byte_level_tokenizer())
    inputs = batch(4, 9, 6)
    spoken = models[1].generate(**inputs, max_new_tokens=12)[1, inputs["input_ids"].shape[1] :]
    text = b"".join(bytes(byte_level_bytes(token)) for token in spoken[3:5].tolist())
    strings = [text.decode("latin-1"), tokenizer.decode(spoken[7:9])]
    settings = {"max_new_tokens": 12, "stop_strings": [string for string in strings if "\ufffd" not in string] or ["e"]}
    for eos in (EOS, None):  # without an end token Transformers does not pad
        equal(models, inputs, tokenizer=tokenizer, eos_token_id=eos, **settings)
    with pytest.raises(ValueError, match="tokenizer"):
        models[1].generate(**inputs, **settings)


def byte_level_bytes(token: int) -> bytes:
    from faster_smolvlm.generation.token_bytes import TokenBytes

    return TokenBytes(byte_level_tokenizer())[token]


def test_generation_config_object(models: Any) -> None:
    inputs = batch(4, 9)
    for config in (transformers.GenerationConfig, GenerationConfig):
        theirs = models[0].generate(**inputs, generation_config=transformers.GenerationConfig(max_new_tokens=5))
        assert torch.equal(models[1].generate(**inputs, generation_config=config(max_new_tokens=5)), theirs)
    assert models[1].generation_config.eos_ids == [EOS]


@pytest.mark.parametrize("copies", [1, 3])
def test_pictures_are_encoded_once(models: Any, copies: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = models[1], []
    forward = model.model.vision_model.forward
    monkeypatch.setattr(model.model.vision_model, "forward", lambda *a, **k: (calls.append(1), forward(*a, **k))[1])
    for use_cache in (True, False):
        calls.clear()
        model.generate(
            **batch(4, 9), do_sample=True, num_return_sequences=copies, max_new_tokens=6, use_cache=use_cache
        )
        assert len(calls) == 1


def test_encoded_pictures_in_place_of_pixels(models: Any) -> None:
    inputs = batch(4, 9)
    expected = models[1].generate(**inputs, max_new_tokens=8)
    pixels = (inputs.pop("pixel_values"), inputs.pop("pixel_attention_mask"))
    encoded = [model.model.get_image_features(*pixels, return_dict=True) for model in models]
    for model, image in zip(models, encoded, strict=True):
        ids = model.generate(**inputs, mm_encoder_outputs={"image": image}, max_new_tokens=8)
        assert torch.equal(ids, expected)
    with pytest.raises(ValueError, match="pixel_values"):
        models[1].generate(**inputs, pixel_values=pixels[0], mm_encoder_outputs={"image": encoded[1]}, max_new_tokens=8)


def test_inputs_embeds(models: Any) -> None:
    inputs = batch(4, 9)
    ids = inputs.pop("input_ids")
    embeds = models[0].get_input_embeddings()(ids).detach()
    new = equal(models, {**inputs, "inputs_embeds": embeds}, max_new_tokens=8)
    assert new.shape == (2, 8)
    whole = equal(models, {**inputs, "inputs_embeds": embeds, "input_ids": ids}, max_new_tokens=8)
    assert torch.equal(whole, torch.cat((ids, new), 1))
    equal(models, {**inputs, "inputs_embeds": embeds}, max_length=embeds.shape[1] + 4)


def test_two_rows_of_pictures_for_one_prompt(models: Any) -> None:
    inputs = batch(5, pictures=4)
    for name in ("pixel_values", "pixel_attention_mask"):
        inputs[name] = inputs[name].unflatten(1, (2, 2)).flatten(0, 1)
    equal(models, inputs, max_new_tokens=8)
    equal(models, inputs, max_new_tokens=8, do_sample=True, num_return_sequences=2, seed=0)


def test_without_a_cache(models: Any) -> None:
    inputs = batch(4, 9)
    expected = equal(models, inputs, max_new_tokens=8)
    assert torch.equal(expected, equal(models, inputs, max_new_tokens=8, use_cache=False))
    # A generated image token is text like any other.
    ids = models[1].generate(
        **inputs,
        max_new_tokens=4,
        use_cache=False,
        logits_processor=[lambda ids, scores: scores.index_fill(1, torch.tensor(IMAGE), 99.0)],
    )
    assert (ids[:, -4:] == IMAGE).all()


def test_static_cache_is_accepted(models: Any) -> None:
    inputs = batch(6)
    expected = models[0].generate(**inputs, max_new_tokens=6)
    assert torch.equal(models[1].generate(**inputs, max_new_tokens=6, cache_implementation="static"), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_ids": None}, "prompt"),
        ({"input_ids": [[1, 2]]}, "tensor"),
        ({"input_ids": torch.zeros(3, dtype=torch.int64)}, "shape"),
        ({"input_ids": torch.zeros(1, 3)}, "integers"),
        ({"input_ids": torch.zeros(1, 0, dtype=torch.int64)}, "empty"),
        ({"attention_mask": torch.ones(1, 2)}, "attention_mask"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temprature": 0.5}, "temprature"),
        ({"stop_strings": ""}, "stop_strings"),
        ({"stop_strings": "left"}, "tokenizer"),
        ({"do_sample": True, "temperature": 0.0}, "do_sample=False"),
        ({"input_ids": torch.tensor([[1, 400]]), "attention_mask": None, "pixel_values": None}, "400"),
    ],
)
def test_bad_arguments_are_value_errors(models: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models[1].generate(**{**batch(4), "max_new_tokens": 3, **change})


def test_right_padding_is_a_warning(models: Any) -> None:
    inputs = batch(4, 9)
    flipped = {**inputs, **{key: inputs[key].flip(1) for key in ("input_ids", "attention_mask")}}
    with pytest.warns(UserWarning, match="padding_side"):
        models[1].generate(**flipped, max_new_tokens=2)
