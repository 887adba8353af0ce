"""Models of transformers: dual encoders, and vision-language models that generate text."""
