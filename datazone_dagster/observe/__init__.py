"""What is worth telling: lag, health and metadata, computed from plain facts.

Pure: no clock, no tables, no Dagster. Whoever calls gives the time.
"""
