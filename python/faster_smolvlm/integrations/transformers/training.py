"""Our torch classes in Transformers' `Trainer`."""

from __future__ import annotations

from pathlib import Path

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...modeling.modeling_base import SmolVLMPreTrainedModel


class ConfigFilesCallback(TrainerCallback):  # type: ignore[misc]  # Transformers has no types for mypy
    """Writes `config.json` and `generation_config.json` beside the weights that a `Trainer` writes.

    The `Trainer` writes the weights alone of a model that is no class of Transformers. With
    ``Trainer(model, callbacks=[ConfigFilesCallback()], …)`` each `from_pretrained` reads the checkpoints, and what
    ``trainer.save_model()`` writes after the training.
    """

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: object) -> None:
        """Complete the checkpoint that has just been written."""
        _write(objects.get("model"), state, Path(args.output_dir, f"checkpoint-{state.global_step}"))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **objects: object
    ) -> None:
        """Prepare the folder of the run for the weights of the end."""
        _write(objects.get("model"), state, Path(args.output_dir))


def _write(model: object, state: TrainerState, directory: Path) -> None:
    while isinstance(model, nn.Module) and not isinstance(model, SmolVLMPreTrainedModel):
        # DistributedDataParallel and torch.compile; an adapter of peft has files of its own
        model = getattr(model, "module", None) or getattr(model, "_orig_mod", None)
    if isinstance(model, SmolVLMPreTrainedModel) and state.is_world_process_zero:
        model.save_config_files(directory)
