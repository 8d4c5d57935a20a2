"""Tables of assets: what any asset returns as a Delta table, and tables as what assets annotate."""
