"""What goes out: results, dead letters, events; and when a record is finished."""
