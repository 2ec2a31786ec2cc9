"""What a model has seen or written: contamination, traces, traps, response lengths."""
