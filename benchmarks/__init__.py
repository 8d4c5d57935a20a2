"""How fast, how much memory, against what: in child processes, as JSON and Markdown.

`make bench` runs all of it. See docs/performance.md for what it found and what bounds it.
"""
