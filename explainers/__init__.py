"""Explanations on request: what a prediction rests on, and how sure that is."""
