"""Facts and controls of the running process: crash points, memory, its container, shutdown."""
