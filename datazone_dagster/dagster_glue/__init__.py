"""How the library sits in Dagster: assets, drain sensors, IO manager, checks and alerts.

The only room that knows Dagster. It decides nothing about data: it calls the flow, and tells
Dagster what the flow reports.
"""
