"""Everything that speaks Kubernetes, and nothing that speaks machine learning.

Here will live: the plan (demand, observed and limits give the patch, or a reason to wait), the
client (the only importer of the Kubernetes library), the reservations that jobs hold, and the
manifests of a RayCluster. It may import `rayml.errors` and `rayml.config` only. Import it as
`rayml.cluster`: from the repository's root `import cluster` would work as well, and give every
class a second identity.
"""
