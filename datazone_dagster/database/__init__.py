"""DuckDB databases, opened in one way: bounded, isolated, with a spill folder of their own."""
