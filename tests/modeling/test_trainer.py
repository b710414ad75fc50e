"""Transformers' `Trainer` on the torch classes: what it writes, what it reads again, and each step by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import faster_smolvlm
import pytest
import torch
import transformers
from faster_smolvlm import AutoModelForImageTextToText, SmolVLM
from faster_smolvlm.integrations.transformers import ConfigFilesCallback
from safetensors.torch import load_file, save_file
from torch import Tensor

if TYPE_CHECKING:
    from faster_smolvlm import SmolVLMForConditionalGeneration
    from transformers import Trainer

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("one_thread")]

DEMO = Path(faster_smolvlm.__file__).parent / "demo"
HEAD, EMBEDDING = "lm_head.weight", "model.text_model.embed_tokens.weight"
PROMPT = torch.tensor([[1, 400, 401]])


def load() -> SmolVLMForConditionalGeneration:
    return AutoModelForImageTextToText.from_pretrained(DEMO)


def row(shade: float) -> dict[str, Tensor]:
    ids = torch.tensor([1] + [510] * 16 + [400, 511])
    return {"input_ids": ids, "labels": ids, "pixel_values": torch.full((1, 3, 64, 64), shade)}


ROWS = [row(shade) for shade in (0.5, -0.5, 0.25, 1.0)]


def trainer_of(model: torch.nn.Module, folder: Path, **options: object) -> Trainer:
    pytest.importorskip("accelerate")
    settings: dict[str, object] = {
        "max_steps": 2, "report_to": [], "use_cpu": True, "save_strategy": "no", "disable_tqdm": True,
        "per_device_train_batch_size": 2, "per_device_eval_batch_size": 2, "learning_rate": 1e-3, **options,
    }  # fmt: skip
    arguments = transformers.TrainingArguments(str(folder), **settings)
    return transformers.Trainer(
        model, arguments, train_dataset=ROWS, eval_dataset=ROWS[:2], callbacks=[ConfigFilesCallback()]
    )


def test_safetensors_writes_the_state_of_a_tied_model(tmp_path: Path) -> None:
    model = load()
    state = model.state_dict()
    assert HEAD not in state
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again = load()
    with torch.no_grad():
        again.lm_head.weight.zero_()
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))  # strict: no name is missing
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    assert again.lm_head.weight is again.get_input_embeddings().weight
    again.load_state_dict({**state, HEAD: state[EMBEDDING]})  # the state that Transformers' classes have


@pytest.mark.parametrize("is_config_tied", [True, False])
@pytest.mark.parametrize("is_tied", [True, False])
def test_a_saved_head_is_the_head_of_the_model(tmp_path: Path, is_tied: bool, is_config_tied: bool) -> None:
    model = load()
    if not is_tied:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().flip(0))
    model.config.tie_word_embeddings = is_config_tied
    model.save_pretrained(tmp_path)
    expected = model.generate(input_ids=PROMPT, max_new_tokens=4)
    for kind in (AutoModelForImageTextToText, transformers.AutoModelForImageTextToText):
        again = kind.from_pretrained(tmp_path)
        assert torch.equal(again.lm_head.weight, model.lm_head.weight)
        assert torch.equal(again.generate(input_ids=PROMPT, max_new_tokens=4), expected)


def test_save_pretrained_takes_what_scripts_of_accelerate_pass(tmp_path: Path) -> None:
    model = load()
    model.save_pretrained(tmp_path / "no", is_main_process=False, save_function=torch.save)
    assert not (tmp_path / "no").exists()
    state = {name: tensor * 2 for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path / "yes", is_main_process=True, save_function=torch.save, state_dict=state)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "yes")
    assert torch.equal(again.lm_head.weight, model.lm_head.weight * 2)


def test_checkpoints_are_read_again_by_all(tmp_path: Path) -> None:
    model = load()
    processor = faster_smolvlm.AutoProcessor.from_pretrained(DEMO)
    trainer = trainer_of(
        model, tmp_path, max_steps=4, save_strategy="steps", save_steps=2, eval_strategy="steps", eval_steps=2,
        load_best_model_at_end=True,
    )  # fmt: skip
    trainer.processing_class = processor
    trainer.train()
    trainer.save_model()
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    best = Path(trainer.state.best_model_checkpoint)
    prompt = PROMPT
    answer = model.generate(input_ids=prompt, max_new_tokens=6)
    for folder in (best, tmp_path):
        for kind in (AutoModelForImageTextToText, transformers.AutoModelForImageTextToText):
            again = kind.from_pretrained(folder)
            found = again.state_dict()
            assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
            assert torch.equal(again.generate(input_ids=prompt, max_new_tokens=6), answer)
        short = SmolVLM.from_pretrained(folder)
        assert short.generate("A", max_new_tokens=4).token_ids is not None

    last = load_file(tmp_path / "checkpoint-4" / "model.safetensors")
    again = load()
    trainer_of(again, tmp_path, max_steps=4).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, last[name]), name


def by_hand(model: SmolVLMForConditionalGeneration, accumulation: int = 1) -> list[Tensor]:
    """Two steps of what the `Trainer` does; its order of the rows is theirs."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 2)
    for _ in range(2):
        batch = {name: torch.stack([entry[name] for entry in ROWS[:1] * 2]) for name in ROWS[0]}
        for _ in range(accumulation):
            count = torch.tensor(36 * accumulation)
            model(**batch, num_items_in_batch=count).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return [parameter.detach() for parameter in model.parameters()]


def recompute(model: SmolVLMForConditionalGeneration) -> None:
    model.activation_checkpointing_enable()


@pytest.mark.parametrize(
    ("accumulation", "options"),
    [
        (1, {}),
        (3, {"gradient_accumulation_steps": 3}),
        (1, {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}),
    ],
)
def test_the_trainer_makes_the_steps_of_a_loop(tmp_path: Path, accumulation: int, options: dict[str, object]) -> None:
    expected = by_hand(load(), accumulation)
    model = load()
    trainer = trainer_of(model, tmp_path, optim="adamw_torch", **options)
    trainer.train_dataset = ROWS[:1] * 6
    trainer.train()
    assert not torch.equal(model.lm_head.weight, load().lm_head.weight)
    for (name, found), wanted in zip(model.named_parameters(), expected, strict=True):
        assert torch.equal(found, wanted), name


def test_bf16_and_evaluation(tmp_path: Path) -> None:
    losses = []
    kinds: list[Callable[..., torch.nn.Module]] = [
        AutoModelForImageTextToText.from_pretrained, transformers.AutoModelForImageTextToText.from_pretrained,
    ]  # fmt: skip
    for kind in kinds:
        trainer = trainer_of(kind(DEMO, attn_implementation="sdpa"), tmp_path, bf16=True)
        train = trainer.train().training_loss
        evaluated = trainer.evaluate()["eval_loss"]
        predictions = trainer.predict(ROWS[:2])
        losses.append((train, evaluated))
        first = predictions.predictions[0] if isinstance(predictions.predictions, tuple) else predictions.predictions
        assert first.shape == (2, 19, 512)
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)


def test_losses_are_those_of_the_models_of_transformers(tmp_path: Path) -> None:
    theirs = transformers.AutoModelForImageTextToText.from_pretrained(DEMO)
    assert load().loss_type == theirs.loss_type
    losses = [trainer_of(model, tmp_path).train().training_loss for model in (load(), theirs)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_generation_in_an_evaluation(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    model = load()
    arguments = transformers.Seq2SeqTrainingArguments(
        str(tmp_path), report_to=[], use_cpu=True, predict_with_generate=True, disable_tqdm=True
    )
    prompts = [{"input_ids": entry["input_ids"][:-2], "pixel_values": entry["pixel_values"]} for entry in ROWS[:2]]
    tokenizer = faster_smolvlm.AutoProcessor.from_pretrained(DEMO).tokenizer
    trainer = transformers.Seq2SeqTrainer(model, arguments, processing_class=tokenizer)
    found = trainer.predict(prompts, max_new_tokens=5).predictions
    batch = {name: torch.stack([entry[name] for entry in prompts]) for name in prompts[0]}
    expected = load().generate(**batch, max_new_tokens=5)
    assert torch.equal(torch.as_tensor(found)[:, : expected.shape[1]], expected)


def test_updates_of_generation_settings_are_those_of_transformers() -> None:
    mine, theirs = (kind(top_k=7) for kind in (faster_smolvlm.GenerationConfig, transformers.GenerationConfig))
    for config in (mine, theirs):
        assert config.update(defaults_only=True, **{"top_k": 9, "max_length": 20, "unknown": 1}) == {
            "top_k": 9,
            "unknown": 1,
        }
        assert (config.top_k, config.max_length) == (7, 20)
        config.update(top_k=9)
        assert config.top_k == 9


def test_outputs_are_built_anew_as_dicts_are() -> None:
    output = load()(input_ids=PROMPT, labels=PROMPT)
    for again in (type(output)(dict(output)), type(output)((name, output[name]) for name in output)):
        assert dict(again) == dict(output)
    with pytest.raises(TypeError, match="no field x"):
        type(output)({"x": 1})


@pytest.mark.parametrize("options", [{"every_n_layers": 2}, {"offload": True}, {"every_n_layers": 3, "offload": True}])
def test_recomputed_layers_give_the_same_gradients(options: dict[str, int]) -> None:
    def gradients(model: SmolVLMForConditionalGeneration) -> list[Tensor | None]:
        model.train()
        batch = {name: torch.stack([entry[name] for entry in ROWS[:2]]) for name in ROWS[0]}
        model(**batch).loss.backward()
        return [parameter.grad for parameter in model.parameters()]

    expected = gradients(load())
    for name in ("activation_checkpointing", "gradient_checkpointing"):
        model = load()
        getattr(model, f"{name}_enable")(**options)
        assert getattr(model, f"is_{name}")
        for found, wanted in zip(gradients(model), expected, strict=True):
            assert found is not None
            assert wanted is not None
            assert torch.equal(found, wanted)
        getattr(model, f"{name}_disable")()
        assert not model.is_gradient_checkpointing
    with pytest.raises(ValueError, match="every_n_layers"):
        load().activation_checkpointing_enable(every_n_layers=0)


def test_a_compiled_step_is_one_graph() -> None:
    model = load().train()
    losses, gradients = [], []
    for kind in (model, torch.compile(model, backend="eager", fullgraph=True)):
        loss = kind(input_ids=PROMPT, labels=PROMPT).loss
        loss.backward()
        losses.append(loss.detach())
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
        model.zero_grad()
    assert torch.equal(*losses)
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
