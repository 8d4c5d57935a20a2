"""Assets of datasets: what a run of a transform does, and the IO manager."""
