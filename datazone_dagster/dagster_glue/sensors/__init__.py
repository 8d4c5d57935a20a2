"""Sensors of sources: they drain a stream into its change log, tick by tick, and request runs."""
