"""Changes into a dataset's Delta table: collapse and plan are pure, the engines execute."""
