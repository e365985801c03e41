"""The tensor world: trajectories become batches, batches become gradients."""
