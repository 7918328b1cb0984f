"""Prepares a data set from images as people have them, and audits it.

Runs where the images are, in neither container image.
"""
