"""Spark as the engine of a dataset: the function's SQL and the merge, run by a Connect server."""
