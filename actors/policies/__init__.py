"""Pure deciders that the pool, the window and the launcher obey: no clock, no Ray; tested by numbers alone."""
