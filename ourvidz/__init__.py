"""OurVidz: a server for generative media on one GPU."""

__version__ = "0.1.0"
