"""Stage one, second door: scan a table; land its items in the change log next to the stream."""
