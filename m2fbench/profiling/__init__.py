"""What a model costs: operations, time, memory, energy. A profiler is handed a ready model; it knows nothing of datasets and checkpoints."""
