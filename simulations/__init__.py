"""One machine plays every hospital: synthetic data, partitions, the runner and the baselines."""
