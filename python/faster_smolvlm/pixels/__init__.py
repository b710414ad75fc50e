"""From pictures and clips to the pixels that the model reads: settings, sizes, arithmetic, processors."""
