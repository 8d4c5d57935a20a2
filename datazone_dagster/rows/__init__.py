"""Row-level changes to a keyed Delta table: plans are pure, engines execute them."""
