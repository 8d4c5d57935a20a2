"""Runs: which transforms get one, which runs are alive, which slots they hold."""
