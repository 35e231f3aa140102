"""Chapter 4 of *Deep Learning from Scratch* on NumPy or CuPy."""
