"""What :func:`graphgen.solvers.odeint` is made of."""
