"""From a conversation to token ids: chat template, placeholders, tokenizer, padding."""
