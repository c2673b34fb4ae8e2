"""Flow 2: an explanation request, answered by asking the predictor."""
