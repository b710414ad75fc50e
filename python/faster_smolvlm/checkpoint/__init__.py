"""Where a model comes from: the hub or a directory, its configuration and its weights."""
