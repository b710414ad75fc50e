"""Draws pictures and clips, asks questions about them, and trains the demo checkpoint on both."""
