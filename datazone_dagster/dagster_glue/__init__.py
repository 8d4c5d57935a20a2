"""Integration with Dagster: assets, drain sensors, IO manager, checks and alerts.

The only package that imports Dagster. It makes no decisions about data: it calls the pipeline
and passes its reports to Dagster.
"""
