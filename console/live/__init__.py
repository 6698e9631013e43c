"""The screen of the newest answers, as they pass, and trying a text: what was read, what was said, and correcting it."""
