"""Further attempts at records, in memory and through the topic of retries."""
