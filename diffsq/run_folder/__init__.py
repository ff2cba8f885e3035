"""What a run folder holds: records, the finished run, its chain and summary."""
