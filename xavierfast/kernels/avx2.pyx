# Compiled once per level, from one source; setup.py has the flags.
include "kernels.pxi"
