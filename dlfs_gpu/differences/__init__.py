"""Finite differences without rounding."""
