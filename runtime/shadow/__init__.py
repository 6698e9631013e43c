"""A version that is compared on live records and answers none of them."""
