"""What operators look at and do: from the indexes and the rooms' own keys, never by a scan of the keyspace."""
