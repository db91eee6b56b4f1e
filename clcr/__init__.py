"""CLCR (Cross-Level Co-Representation): the method, readable alone beside the paper (arXiv 2602.19605).

Importing this package loads no torch; the parts load it when they are imported by name.
"""

__version__ = "0.1.0"
