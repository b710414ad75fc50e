"""From what a caller passes to a question that the processor takes: messages, decoded pictures, sampled clips."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ..media import MediaError, MediaPolicy, load_image
from ..media.kinds import is_source
from ..media.nesting import metadata_of
from ..text import conversation

if TYPE_CHECKING:
    from ..media.kinds import Picture
    from ..media.nesting import Clip
    from ..pixels.protocols import VideoProcessor
    from ..text.conversation import Conversation

# How the family samples clips, for a checkpoint whose files do not say.
_NUM_FRAMES, _FPS = 64, 1


class Question(NamedTuple):
    """One conversation in the form that chat templates read, its pictures, decoded, and its clips as they came."""

    messages: Conversation
    pictures: list[Picture]
    clips: list[object]


def one_message(prompt: str, images: object, videos: object) -> Conversation:
    """Return the conversation that shows `images`, then `videos` (one or several of each), and asks `prompt`."""
    content: list[dict[str, object]] = [
        {"type": kind, kind: item} for kind, items in (("image", images), ("video", videos)) for item in _listed(items)
    ]
    return [{"role": "user", "content": [*content, {"type": "text", "text": prompt}]}]


def one_message_each(prompt: object, images: Sequence[object], videos: Sequence[object]) -> list[Conversation]:
    """Return a conversation for each prompt: `prompt` is a string, or a list with as many lists of media.

    Raises ValueError for other prompts, and if the numbers differ.
    """
    prompts: list[object] = list(prompt) if isinstance(prompt, (list, tuple)) else [prompt]
    texts = [text for text in prompts if isinstance(text, str)]
    if not prompts or len(texts) < len(prompts):
        raise ValueError(f"prompt has to be a string or a non-empty list of strings, got {prompt!r:.200}")
    if isinstance(prompt, str):
        return [one_message(prompt, images, videos)]
    media: dict[str, list[object]] = {"images": list(images), "videos": list(videos)}
    for name, given in media.items():
        if given and len(given) != len(texts):
            raise ValueError(f"{len(texts)} prompts need as many lists of {name}, got {len(given)}")
    empty: list[object] = [()] * len(texts)
    return [
        one_message(*parts) for parts in zip(texts, media["images"] or empty, media["videos"] or empty, strict=True)
    ]


def read_question(messages: Iterable[Mapping[str, object]], policy: MediaPolicy) -> Question:
    """Read the pictures of a conversation. Raises TypeError for several conversations, a `MediaError` as `load_image`.

    An error about one of several pictures says which.
    """
    (normal,), batched = conversation.normalize(list(messages))
    if batched:
        raise TypeError("messages has to be one conversation: a list of dicts")
    for message in normal:
        if isinstance(message.get("content"), str):  # the family's chat template reads lists only
            message["content"] = [{"type": "text", "text": message["content"]}]
    sources, clips = conversation.media(normal)
    pictures = [_picture(source, number, len(sources), policy) for number, source in enumerate(sources, 1)]
    return Question(normal, pictures, clips)


def sample_clips(
    clips: Sequence[object], videos: VideoProcessor, policy: MediaPolicy
) -> tuple[list[object], dict[str, object]]:
    """Return clips as `videos` takes them, and the arguments that sample them.

    Files are sampled as the checkpoint says; of clips in memory every frame is taken.
    """
    limits: dict[str, Any] = {"num_frames": videos.num_frames or _NUM_FRAMES, "fps": videos.fps or _FPS}
    if all(map(is_source, clips)):
        return list(clips), {"do_sample_frames": True, **limits}
    if not any(map(is_source, clips)):
        return list(clips), {"do_sample_frames": False}
    from ..media.video import VideoReader  # heavy, and seldom needed

    # One call samples either all clips or none, so the files become arrays first.
    frames: list[object] = []
    metadata = metadata_of(cast("Sequence[Clip]", clips), None)
    for index, clip in enumerate(clips):
        if is_source(clip):
            reader = VideoReader(clip, policy=policy, threads=videos.threads, rotate=True)
            sampler = videos.sampler(reader, frame_sampling=videos.frame_sampling, **limits)
            decoded, metadata[index] = reader.frames(sampler)
            frames.append(decoded)
        else:
            frames.append(clip)
    return frames, {"do_sample_frames": False, "video_metadata": metadata}


def _picture(source: object, number: int, total: int, policy: MediaPolicy) -> Picture:
    try:
        return load_image(source, policy)
    except MediaError as error:
        if total == 1:
            raise
        raise type(error)(f"picture {number}: {error}") from None


def _listed(media: object) -> Sequence[object]:
    return media if isinstance(media, Sequence) and not is_source(media) else [media]
