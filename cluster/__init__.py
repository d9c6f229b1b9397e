"""Everything that speaks Kubernetes, and nothing that speaks machine learning.

`plan` is the heart: demand, observation and limits give sizes and victims, or a reason to wait.
`reservations` carries it out, `client` calls Kubernetes, `lifecycle` makes and ends clusters. It
may import `rayml.errors` and `rayml.config` only. Import it as `rayml.cluster`: from the
repository's root `import cluster` would work as well, and give every class a second identity.
"""
