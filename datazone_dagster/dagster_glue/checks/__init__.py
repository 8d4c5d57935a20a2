"""Asset checks of datasets, and how values are shown."""
