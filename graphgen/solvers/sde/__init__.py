"""What the solvers with noise are made of."""
