"""The append-only table of everything a source delivered, and the checkpoint beside it."""
