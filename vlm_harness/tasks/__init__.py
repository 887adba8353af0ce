"""From rows to samples, orders and prompts."""
