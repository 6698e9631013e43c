"""The frame of all screens: who asks and may what, safety of requests, pages, and the files beside them."""
