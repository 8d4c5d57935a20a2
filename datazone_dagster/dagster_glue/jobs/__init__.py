"""Jobs beside the runs of transforms: drains of shards, snapshots, repairs, maintenance."""
