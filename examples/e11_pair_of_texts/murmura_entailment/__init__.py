"""A kind of task that reads two texts: does the second one follow from the first?"""
