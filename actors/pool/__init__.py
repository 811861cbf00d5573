"""Pools of teachers in Ray actors, the only callers of `.remote` on them.

A host is what an actor holds: one teacher, or several that live together. `TeacherPool` (in the driver) owns the
replicas of every host, `PoolController` is the small actor where it and the students meet, `PoolClient` the source in a
student worker, `TeacherActor` one replica.
"""
