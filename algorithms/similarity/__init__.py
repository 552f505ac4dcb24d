"""How alike two images are: what L_con compares psi(x) with its positive and its negative by."""
