"""Clients of the broker, apart from the group's consumer: topics, fixed ranges, changelogs, offsets."""
