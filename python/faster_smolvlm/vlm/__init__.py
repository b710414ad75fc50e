"""The short way in: one object that loads a model and answers about pictures and clips."""
