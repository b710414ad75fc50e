"""From the rows of a call to the inputs of the model; a row that cannot be used is named, or left out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..text.control_tokens import is_marked, mark_texts
from .answers import Timings
from .errors import at, located
from .messages import one_message
from .question import Question, Row, sample_clips

if TYPE_CHECKING:
    from ..media import MediaPolicy
    from ..processor.processing_smolvlm import SmolVLMProcessor
    from ..text.conversation import Conversation, Message
    from .ask import Ask
    from .engines import AnswerEngine, Inputs


@dataclass(frozen=True)
class Prepared:
    """What the model is given for the rows that can be used, and what is wrong with the others, by row.

    `inputs` are those of the processor, None if no row is left.
    """

    inputs: Inputs | None
    failed: dict[int, Exception]
    timings: Timings


@dataclass(frozen=True)
class Preparation:
    """How the rows of one call are prepared for an engine."""

    processor: SmolVLMProcessor
    policy: MediaPolicy
    engine: AnswerEngine
    ask: Ask

    def run(self, rows: Sequence[Row]) -> Prepared:
        """Read the rows and make the inputs. An error names its row, if there are several."""
        start = time.perf_counter()
        failed: dict[int, Exception] = {}
        questions: dict[int, Question] = {}
        for index, row in enumerate(rows):
            try:
                questions[index] = row(self.policy)
            except Exception as error:
                self._fail(failed, index, len(rows), error)
        decoded = time.perf_counter()
        inputs = self._inputs_of_usable(questions, failed, len(rows))
        prepared = time.perf_counter()
        return Prepared(inputs, failed, Timings(image_decode=decoded - start, preprocessing=prepared - decoded))

    def prompt(self, messages: Conversation) -> str:
        """Return the text of a conversation; tokens that a user wrote are marked in it."""
        if not self.ask.control_tokens:
            tokens = self.processor.control_tokens()
            messages = [_guarded(message, tokens) for message in messages]
        text: str = self.processor.apply_chat_template(messages, add_generation_prompt=True)
        return text

    def _inputs_of_usable(
        self, questions: dict[int, Question], failed: dict[int, Exception], count: int
    ) -> Inputs | None:
        if not questions:
            return None
        try:
            return self._inputs(list(questions.values()))
        except MemoryError:
            raise
        except Exception:
            # Which row it is, each one alone says.
            usable: dict[int, Question] = {}
            for index, question in questions.items():
                try:
                    self._inputs_of_one(question)
                    usable[index] = question
                except Exception as error:
                    self._fail(failed, index, count, error)
            if len(usable) == len(questions):
                raise
            return self._inputs(list(usable.values())) if usable else None

    def _inputs_of_one(self, question: Question) -> Inputs:
        """Make the inputs of one row; an error about one of several clips says which."""
        try:
            return self._inputs([question])
        except Exception:
            if len(question.clips) > 1:
                for number, clip in enumerate(question.clips, 1):
                    with at(f"clip {number}"):
                        self._inputs([Question(one_message("", 0, 1), [], [clip])])
            raise

    def _fail(self, failed: dict[int, Exception], index: int, count: int, error: Exception) -> None:
        if isinstance(error, MemoryError) or (count == 1 and self.ask.on_error == "raise"):
            raise error
        named = located(error, f"prompt {index + 1} of {count}") if count > 1 else error
        if self.ask.on_error == "raise":
            raise named from None
        failed[index] = named

    def _inputs(self, questions: Sequence[Question]) -> Inputs:
        pictures = [question.pictures for question in questions]
        clips = [clip for question in questions for clip in question.clips]
        arguments: dict[str, object] = {"media_policy": self.policy}
        if self.engine.position_limit is not None:
            arguments["verbose"] = False  # too many tokens are an error below; the tokenizer need not log them
        if self.ask.do_image_splitting is not None:
            arguments["do_image_splitting"] = self.ask.do_image_splitting
        texts = [self.prompt(question.messages) for question in questions]
        if any(map(is_marked, texts)) and not self.ask.control_tokens:
            arguments["sanitize_control_tokens"] = True
        if clips:
            clips, sampling = sample_clips(clips, self.processor.require_video_processor(), self.policy)
            arguments |= sampling
            arguments["clips_per_prompt"] = [len(question.clips) for question in questions]
        inputs = self.processor(
            text=texts,
            images=pictures if any(pictures) else None,
            videos=[clips] if clips else None,  # as of one prompt, so that a list of pictures in it is one clip
            return_tensors=self.engine.tensors,
            padding=True,
            padding_side="left",
            add_special_tokens=False,
            **arguments,
        )
        self.engine.check_length(int(inputs["attention_mask"].sum(1).max()), self.ask)
        return inputs


def _guarded(message: Message, tokens: frozenset[str]) -> Message:
    """Return a message whose control tokens are marked."""
    texts = [part["text"] for part in message["content"] if "text" in part]
    marked = iter(mark_texts(texts, tokens))
    content = [{**part, "text": next(marked)} if "text" in part else part for part in message["content"]]
    name = {"name": mark_texts([message["name"]], tokens)[0]} if "name" in message else {}
    return {**message, **name, "content": content}
