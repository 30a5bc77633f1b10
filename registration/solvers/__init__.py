"""Solvers of one level: Gauss-Newton, Adam and L-BFGS, alike in what they take and return."""

from registration.solvers.adam import adam
from registration.solvers.gauss_newton import gauss_newton
from registration.solvers.lbfgs import lbfgs
from registration.solvers.trace import Trace

SOLVERS = {"gauss_newton": gauss_newton, "adam": adam, "lbfgs": lbfgs}

__all__ = ["SOLVERS", "Trace", "adam", "gauss_newton", "lbfgs"]
