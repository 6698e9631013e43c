"""Event in, result out: consuming, batching, inference, publishing. Knows no particular agent."""
