"""Measures a network on images: metrics, confidence intervals, calibration."""
