"""The worker side: teachers, pools, sources, students and what they compute with."""
