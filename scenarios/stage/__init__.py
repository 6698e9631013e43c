"""What scenarios share: a broker and a desk in one process, its books, and the screen that shows them."""
