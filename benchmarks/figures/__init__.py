"""What benchmarks share: interleaved rounds in an order of chance, and goals that are met or missed."""
