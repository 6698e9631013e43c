"""Rows as a step reads them: token ids, batches, vectors of a frozen encoder, targets that are answers."""
