"""The screen of all agents: what each answers, how fast, and what is wrong."""
