"""Commands for whoever runs a project: each in its own module, loaded when it is called.

They load the project's own definitions, so they work on the very transforms and tables that
Dagster works on.
"""
