"""What every room uses and no room owns: devices, processes, progress, statistics. Knows nothing of models."""
