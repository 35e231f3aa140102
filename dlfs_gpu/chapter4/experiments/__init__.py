"""What the report has to train or to measure before it can check or draw; private to it.

Each function is seeded, runs on the backend it is given, and brings its results to the host.
"""
