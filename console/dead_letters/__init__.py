"""The screen of dead letters: by reason and agent, one in detail, and sending them again."""
