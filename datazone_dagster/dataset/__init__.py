"""Semantics of a dataset: modes, deletes, history, quarantine."""
