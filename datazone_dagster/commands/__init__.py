"""Commands for operators of a project. Each has its own module, loaded when it is called.

Commands load the project's own definitions, so they work on the same transforms and tables as
Dagster does.
"""
