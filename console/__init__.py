"""The console in the browser: reads topics, shows what happens, and writes people's decisions as records."""
