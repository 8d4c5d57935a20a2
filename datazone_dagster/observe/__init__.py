"""Lag, health and metadata, computed from plain facts.

Pure: no clock, no tables, no Dagster. The caller passes the time.
"""
