//! What only etcd can do to a store: go away, be shared, be full, ask who one is.
