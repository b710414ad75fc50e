"""What a picture becomes: `ImagePlan`."""

from __future__ import annotations

from dataclasses import dataclass

# The tokenizers of the family have position tokens for grids up to 6 × 6.
_LARGEST_GRID = 6


@dataclass(frozen=True)
class ImagePlan:
    """The grid of a picture: `rows` × `cols` tiles and a global view, or one frame if both are 0."""

    rows: int
    cols: int
    frames: int
    image_seq_len: int

    @property
    def prompt_tokens(self) -> int:
        """Tokens that the picture takes in the prompt.

        Raises ValueError for grids larger than 6 × 6: how their text is cut depends on the tokenizer.
        """
        if max(self.rows, self.cols) > _LARGEST_GRID:
            raise ValueError(f"a grid of {self.rows} × {self.cols} has no place tokens; encode the prompt to count it")
        # Each tile has two tokens in front, each row of tiles a line break behind; the global view has three tokens
        # around it.
        return self.frames * self.image_seq_len + 2 * self.rows * self.cols + self.rows + 3
