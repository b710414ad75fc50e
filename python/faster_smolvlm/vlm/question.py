"""From what a caller passes to a question that the processor takes: messages, decoded pictures, sampled clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

from ..media import MediaPolicy, load_image
from ..media.grey import eight_bit_grey
from ..media.kinds import is_frame, is_pil_image, is_source
from ..media.nesting import metadata_of
from ..quoting import shown
from ..text.well_formed import check_text
from .errors import at
from .messages import one_message, read_messages

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


Row: TypeAlias = Callable[[MediaPolicy], Question]
"""One prompt of a call that is not read yet: its pictures are opened when it is called."""


def row_of_messages(messages: object) -> Row:
    """Return the row of a conversation; it raises MessageError for what it does not understand."""

    def read(policy: MediaPolicy) -> Question:
        conversation, pictures, clips = read_messages(messages)
        return Question(conversation, _pictures(pictures, policy), clips)

    return read


def row_of_prompt(prompt: object, images: object, videos: object) -> Row:
    """Return the row that shows `images`, then `videos` (one or several of each, or None), and asks `prompt`."""

    def read(policy: MediaPolicy) -> Question:
        if not isinstance(prompt, str):
            raise ValueError(f"prompt has to be a string or a non-empty list of strings, got {shown(prompt)}")
        check_text(prompt, "prompt")
        pictures, clips = _listed(images), _listed(videos)
        return Question(one_message(prompt, len(pictures), len(clips)), _pictures(pictures, policy), clips)

    return read


def rows_of_prompts(prompts: Sequence[object], images: object, videos: object) -> list[Row]:
    """Return the row of each prompt; `images` and `videos` hold an entry for each, or are empty.

    Raises ValueError if there is no prompt, and if the numbers differ.
    """
    if not prompts:
        raise ValueError("prompt has to be a string or a non-empty list of strings, got an empty list")
    media = [_each(given, name, len(prompts)) for name, given in (("images", images), ("videos", videos))]
    return [row_of_prompt(*parts) for parts in zip(prompts, *media, strict=True)]


def _each(given: object, name: str, count: int) -> list[object]:
    wrong = is_source(given) or is_frame(given) or isinstance(given, Mapping)
    if given is not None and (wrong or not hasattr(given, "__len__") or not hasattr(given, "__getitem__")):
        raise ValueError(f"{count} prompts need as many lists of {name}, got {shown(given)}; repeat it for each prompt")
    entries = [] if given is None else list(cast("Sequence[object]", given))
    if entries and len(entries) != count:
        raise ValueError(f"{count} prompts need as many lists of {name}, got {len(entries)}")
    return entries or [()] * count


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


def _pictures(sources: Sequence[object], policy: MediaPolicy) -> list[Picture]:
    found: list[Picture] = []
    for number, source in enumerate(sources, 1):
        with at(f"picture {number}" if len(sources) > 1 else ""):
            picture = load_image(source, policy)
            found.append(eight_bit_grey(picture, "PIL image") if is_pil_image(picture) else picture)
    return found


def is_given(media: object) -> bool:
    """Whether an argument for pictures or clips holds any."""
    return bool(_listed(media))


def _listed(media: object) -> list[object]:
    if media is None:
        return []
    return list(media) if isinstance(media, Sequence) and not is_source(media) else [media]
