"""Files of tasks and trajectories, in versioned Parquet schemas."""
