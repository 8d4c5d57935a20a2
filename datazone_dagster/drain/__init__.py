"""Reading shards in order: a pure planner, then a reader that does what the plan says."""
