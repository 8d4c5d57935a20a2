"""What a process has: crash points for tests, memory, and its shutdown."""
