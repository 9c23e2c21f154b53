"""The command line: each sub-command a thin call of one function of its stage."""
