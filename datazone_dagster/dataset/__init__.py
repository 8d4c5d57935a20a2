"""What a dataset is: modes, deletes, history, quarantine."""
