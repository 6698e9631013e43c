"""Commands that read and write records: publish, tail, replay, topics and dead letters."""
