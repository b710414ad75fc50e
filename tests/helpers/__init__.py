"""What tests share: models, clips, checks. Imported as `tests.helpers.NAME` everywhere."""
