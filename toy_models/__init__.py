"""Training of the toy models in models/: `make train-tiny`."""
