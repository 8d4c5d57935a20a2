"""Nouns of the domain. Standard library only: no clock, no network, no tables."""
