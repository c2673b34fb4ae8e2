"""ServeLens: what the four rooms share (`contract`), the only clients (`io`), the command line and the demo."""

__version__ = "0.1.0"
