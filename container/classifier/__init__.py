"""Code that training, serving and the command line share.

Both container images have this package, so it imports only what both install: NumPy, Pillow and the
standard library.
"""
