"""Dagster components: sources and datasets declared in YAML."""
