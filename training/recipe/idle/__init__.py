"""Keys that have no effect beside others: refused by name, or named in a note. Pure."""
