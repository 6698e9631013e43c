"""Kafka clients other than the group's consumer: topics, offset ranges, changelogs, offsets."""
