"""Claims: what each system must reach, the script that measures it, and the rows it left."""

from claims.framework import Claim, Context, Figure, Measured

__all__ = ["Claim", "Context", "Figure", "Measured"]
