"""The append-only table of everything that a source delivered, and its checkpoint table."""
