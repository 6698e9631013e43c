"""`murmura demo-experiment`: a better version that is promoted, and a worse one that is stopped, by their answers."""
