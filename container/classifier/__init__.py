"""What a trained classifier is: its preprocessing, its artifact, its errors.

Both container images hold this package, so it imports only what both install: NumPy, Pillow and the
standard library.
"""
