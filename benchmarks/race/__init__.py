"""What the benchmark of serving is made of: nets, servers, requests, load by wrk, rounds, goals."""
