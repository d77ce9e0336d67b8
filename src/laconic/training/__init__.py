"""Where a training loop plugs in: optimisers that send their update, and what they share."""
