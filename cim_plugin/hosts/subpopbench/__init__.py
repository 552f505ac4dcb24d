"""SubpopBench as host."""
