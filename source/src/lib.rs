//! Kubernetes objects for the parts on a node: listed and watched at an API server, or read from a folder of manifests.
