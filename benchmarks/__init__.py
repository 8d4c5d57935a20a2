"""Benchmarks of speed and memory against a baseline: in child processes, as JSON and Markdown.

`make bench` runs them. docs/performance.md discusses the results and their limits.
"""
