"""How the tiny models of models/ are made: `make train-tiny`."""
