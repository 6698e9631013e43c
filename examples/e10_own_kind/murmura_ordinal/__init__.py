"""A kind of task for grades: labels in an order, of which a text has one."""
