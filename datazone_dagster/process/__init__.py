"""Facts and controls of the running process: crash points for tests, memory, shutdown."""
