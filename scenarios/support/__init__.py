"""A bank's support desk for cards and accounts: its model, messages, rows, recipe, policy and two demos."""
