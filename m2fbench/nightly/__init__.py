"""A night: a matrix of suites, checkpoints and variants, each cell in a process of its own, judged by what came before."""
