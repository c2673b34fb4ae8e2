"""The whole loop on one machine: a real model on real flights, the real processes, and a shift to be found."""
