"""The command line. Every command is one public Python function with the same arguments."""

from cardiogen.cli.app import main

__all__ = ["main"]
