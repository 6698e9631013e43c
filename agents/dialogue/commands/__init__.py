"""The commands of dialogue: `murmura chat`, `murmura dialogue` and `murmura knowledge`."""
