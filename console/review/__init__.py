"""The review queue: what people are asked to judge, who holds what, and how a verdict becomes feedback."""
